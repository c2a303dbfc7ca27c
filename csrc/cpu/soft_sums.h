#pragma once

#include <cstdint>

#include "soft_frame.h"

namespace vqk::VQK_LEVEL {

// What every row gives to the weights A_nk = p_nk (row_n + slope_n (l_nk - logsumexp_n) + code_k).
struct SoftRows {
  Rows x;                   // (N, D)
  const uint8_t* mask;      // (N,) or null
  const double* logsumexp;  // (N,)
  const float* row;         // (N,); null means one
  const float* slope;       // (N,); null means zero
};

// Codes of a panel of sums, and how many panels.
VQK_INLINE int64_t code_panels(int64_t num_codes) {
  return (num_codes + panel_codes - 1) / panel_codes;
}

// Sums over the rows, for every code: of A, and of A times x - mu. Each code is one thread's, and
// meets the rows in ascending order.
//   of_code: (code_panels(K) * panel_codes,)
//   totals:  (code_panels(K), panel_codes) out
//   sums:    (code_panels(K), pull_width(D), panel_codes) out; null to skip
void sum_over_rows(const SoftFrame& frame, const float* codebook, int64_t num_codes,
                   const SoftRows& rows, const float* of_code, int threads, double* totals,
                   double* sums);

}  // namespace vqk::VQK_LEVEL
