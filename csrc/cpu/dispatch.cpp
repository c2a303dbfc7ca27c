#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "kernels.h"
#include "parallel.h"
#include "vqk/isa.h"
#include "vqk/pruning.h"

namespace vqk {
namespace {

struct Level {
  const char* name;
  bool (*supported)();
  const Kernels* kernels;
};

// Slowest first. __builtin_cpu_supports also checks that the system saves the registers.
const Level levels[] = {
    {"portable", [] { return true; }, &portable::kernels},
#if defined(VQK_X86_LEVELS)
    {"avx2",
     [] { return bool(__builtin_cpu_supports("avx2")) && bool(__builtin_cpu_supports("fma")); },
     &avx2::kernels},
    {"avx512",
     [] {
       return bool(__builtin_cpu_supports("avx512f")) && bool(__builtin_cpu_supports("avx512bw")) &&
              bool(__builtin_cpu_supports("avx512dq")) &&
              bool(__builtin_cpu_supports("avx512vl")) && bool(__builtin_cpu_supports("fma"));
     },
     &avx512::kernels},
#endif
};

std::atomic<const Level*> active_level{nullptr};
std::atomic<Pruning> pruning_choice{Pruning::automatic};

const Level* find(const std::string& name) {
  std::string known;
  for (const Level& level : levels) {
    if (name == level.name) {
      if (level.supported()) return &level;
      throw std::runtime_error("VQK_ISA must be a level that this CPU has, got " + name +
                               "; unset VQK_ISA to use the fastest one it has");
    }
    known += (known.empty() ? "" : ", ") + std::string(level.name);
  }
  throw std::invalid_argument("VQK_ISA must be one of " + known + ", got " + name);
}

const Level* choose() {
  const char* forced = std::getenv("VQK_ISA");
  if (forced != nullptr && *forced != '\0') return find(forced);
  const Level* fastest = nullptr;
  for (const Level& level : levels)
    if (level.supported()) fastest = &level;
  return fastest;
}

const Level& active() {
  const Level* level = active_level.load(std::memory_order_acquire);
  if (level == nullptr) {
    level = choose();
    active_level.store(level, std::memory_order_release);
  }
  return *level;
}

template <class Args, class Result>
Result run(Result (*Kernels::*op)(const Args&), const Args& args) {
  const Kernels& kernels = *active().kernels;
  const DefaultFloatEnvironment environment;
  return (kernels.*op)(args);
}

}  // namespace

int isa_levels(const char** names) {
  int count = 0;
  for (const Level& level : levels)
    if (level.supported()) names[count++] = level.name;
  return count;
}

const char* isa() { return active().name; }

void force_isa(const char* name) { active_level.store(find(name), std::memory_order_release); }

Pruning pruning() { return pruning_choice.load(std::memory_order_relaxed); }

void force_pruning(Pruning choice) { pruning_choice.store(choice, std::memory_order_relaxed); }

void nearest_code(const NearestCode& args) { run(&Kernels::nearest_code, args); }
void nearest_codes(const NearestCodes& args) { run(&Kernels::nearest_codes, args); }
void prepare(const Prepare& args) { run(&Kernels::prepare, args); }
double visited_share(const NearestCode& args) { return run(&Kernels::visited_share, args); }
int64_t prepared_bytes(int64_t num_codes, int64_t dim, int64_t cells) {
  return active().kernels->prepared_bytes(num_codes, dim, cells);
}
void partition(const Prepare& args) { run(&Kernels::partition, args); }
int64_t partition_bytes(int64_t dim, int64_t cells) {
  return active().kernels->partition_bytes(dim, cells);
}
int64_t suitable_cells(int64_t num_codes, int64_t dim) {
  return active().kernels->suitable_cells(num_codes, dim);
}
bool is_worn(const Prepared& partition, int64_t dim) {
  return active().kernels->is_worn(partition, dim);
}
int64_t lookup(const Lookup& args) { return run(&Kernels::lookup, args); }
int64_t code_sums(const CodeSums& args) { return run(&Kernels::code_sums, args); }
void vq_forward(const VqForward& args) { run(&Kernels::vq_forward, args); }
void vq_backward(const VqBackward& args) { run(&Kernels::vq_backward, args); }
void normalize_codes(const NormalizeCodes& args) { run(&Kernels::normalize_codes, args); }
void observe(const Observe& args) { run(&Kernels::observe, args); }
void advance(const Advance& args) { run(&Kernels::advance, args); }
double fma_peak(const FmaPeak& args) { return run(&Kernels::fma_peak, args); }
void residual(const Residual& args) { run(&Kernels::residual, args); }
void residual_backward(const ResidualBackward& args) { run(&Kernels::residual_backward, args); }
void soft_assign(const SoftAssign& args) { run(&Kernels::soft_assign, args); }
void soft_assign_backward(const SoftAssignBackward& args) {
  run(&Kernels::soft_assign_backward, args);
}
void sample_codes(const SampleCodes& args) { run(&Kernels::sample_codes, args); }
void fsq(const Fsq& args) { run(&Kernels::fsq, args); }
void fsq_backward(const FsqBackward& args) { run(&Kernels::fsq_backward, args); }
int64_t fsq_lookup(const FsqLookup& args) { return run(&Kernels::fsq_lookup, args); }

}  // namespace vqk
