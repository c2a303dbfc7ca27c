#include "vqk/fma_peak.h"

#include <time.h>

#include "kernels.h"
#include "parallel.h"
#include "simd.h"

namespace vqk::VQK_LEVEL {
namespace {

// More independent chains than latency times throughput of any CPU we know (Intel: 4 cycles, two
// units), few enough for the 16 registers of AVX2.
constexpr int chains = 12;
constexpr int64_t steps = 2000;

struct Work {
  double until;
  int64_t operations;
  float sink;  // what the chains end in, so that they must be computed
};

double now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return double(time.tv_sec) + 1e-9 * double(time.tv_nsec);
}

// Where the last call ended this one starts, so that none can be left out. The values tend to 1:
// neither denormals nor infinities.
float run_chains(float start) {
  const Vec factor = splat(0.5f), term = splat(0.5f);
  Vec value[chains];
  for (int i = 0; i < chains; ++i) value[i] = splat(start + float(i));
  for (int64_t step = 0; step < steps; ++step)
    for (int i = 0; i < chains; ++i) value[i] = multiply_add(value[i], factor, term);
  Vec largest = value[0];
  for (int i = 1; i < chains; ++i) largest = maximum(largest, value[i]);
  return largest_lane(largest);
}

void worker(void* context, int) {
  Work& shared = *static_cast<Work*>(context);
  int64_t blocks = 0;
  float sink = 0;
  do {
    sink = run_chains(sink);
    ++blocks;
  } while (now() < shared.until);
  __atomic_fetch_add(&shared.operations, blocks * steps * chains * lanes * 2, __ATOMIC_RELAXED);
  __atomic_store(&shared.sink, &sink, __ATOMIC_RELAXED);
}

}  // namespace

double fma_peak(const FmaPeak& args) {
  const double started = now();
  Work work{started + args.seconds, 0, 0};
  run_workers(args.threads, worker, &work);
  return double(work.operations) / (now() - started);
}

}  // namespace vqk::VQK_LEVEL
