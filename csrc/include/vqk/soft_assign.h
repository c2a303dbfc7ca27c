#pragma once

#include <cstdint>

#include "vqk/rows.h"

namespace vqk {

// Probabilities of all codes for every row, of which only sums are kept:
//   l_nk = -|x_n - c_k|^2 / temperature,   p_n = softmax over k of l_n.
// Rows that are masked or not finite get 0 and count nowhere; codes that are not finite have p = 0.
// Without a finite code every result is 0. Deterministic at any thread count.
struct SoftAssign {
  Rows x;                 // (N, D)
  const float* codebook;  // (K, D)
  int64_t num_codes;      // K >= 1
  const uint8_t* mask;    // (N,) 0 masks the row; null keeps all
  double temperature;     // > 0
  double* logsumexp;      // (N,) out: log of the sum over k of exp(l_nk)
  double* mean_logit;     // (N,) out: sum over k of p_nk l_nk
  float* usage;           // (K,) out: sum over n of p_nk; null to skip
  int threads;
};

void soft_assign(const SoftAssign& args);

}  // namespace vqk
