#pragma once

namespace vqk {

// What benchmarks divide by: float32 operations per second of a loop that does nothing but
// multiply-adds in registers, at the level in use, on `threads` threads for about `seconds`.
// A multiply-add counts as two, as a search of N rows, K codes and D channels counts as 2 N K D.
struct FmaPeak {
  int threads;     // >= 1
  double seconds;  // > 0
};

double fma_peak(const FmaPeak& args);

}  // namespace vqk
