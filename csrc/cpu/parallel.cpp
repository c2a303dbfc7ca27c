#include "parallel.h"

#include "vqk/isa.h"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif
#if defined(_OPENMP)
#include <omp.h>
#endif

namespace vqk {
namespace {

#if defined(__x86_64__)
constexpr uint64_t default_control = 0x1f80;  // exceptions masked, round to nearest, no FTZ, no DAZ
uint64_t read_control() { return _mm_getcsr(); }
void write_control(uint64_t value) { _mm_setcsr(unsigned(value)); }
#elif defined(__aarch64__)
constexpr uint64_t default_control = 0;
uint64_t read_control() {
  uint64_t value;
  __asm__ volatile("mrs %0, fpcr" : "=r"(value));
  return value;
}
void write_control(uint64_t value) { __asm__ volatile("msr fpcr, %0" : : "r"(value)); }
#else
constexpr uint64_t default_control = 0;
uint64_t read_control() { return default_control; }
void write_control(uint64_t) {}
#endif

}  // namespace

DefaultFloatEnvironment::DefaultFloatEnvironment() : saved_(read_control()) {
  write_control(default_control);
}

DefaultFloatEnvironment::~DefaultFloatEnvironment() { write_control(saved_); }

void run_workers(int threads, void (*task)(void* context, int worker), void* context) {
#if defined(_OPENMP)
  if (threads > 1) {
#pragma omp parallel num_threads(threads)
    {
      DefaultFloatEnvironment environment;
      task(context, omp_get_thread_num());
    }
    return;
  }
#endif
  (void)threads;
  task(context, 0);
}

int openmp_version() {
#if defined(_OPENMP)
  return _OPENMP;
#else
  return 0;
#endif
}

}  // namespace vqk
