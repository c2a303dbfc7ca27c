#pragma once

#include <cstdint>

#include "vqk/rows.h"

namespace vqk::VQK_LEVEL {

// Sums of rows that share a code, with the same bits at any thread count, and without one hot code
// keeping one thread busy: rows are ordered by code (stable), runs are split at fixed boundaries of
// 256 rows of that order, and the float64 partials are combined in order.
struct SortedSums {
  const int32_t* codes;    // (N,) -1 leaves the row out
  int64_t num_codes;       // K
  const Rows* x;           // (N, D)
  const double* divisors;  // (N,) of the rows of x; null means 1
  const Rows* minuend;     // (N, D) float32: adds minuend - x / divisor; null adds x / divisor
  double scale;            // multiplies every sum
  int64_t* counts;         // (K,) out; null to skip
  float* sums;             // (K, D) out; null to skip
  int threads;
};

void sorted_sums(const SortedSums& args);

}  // namespace vqk::VQK_LEVEL
