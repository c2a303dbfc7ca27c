#pragma once

#include <cstdint>

#include "vqk/rows.h"

namespace vqk {

// Gradient of sum(grad_logsumexp * logsumexp) + sum(grad_mean_logit * mean_logit)
// + sum(grad_usage * usage) in the terms of soft_assign.h. With
//   A_nk = p_nk (grad_logsumexp_n + grad_mean_logit_n (1 + l_nk - mean_logit_n)
//                + grad_usage_k - sum over j of p_nj grad_usage_j):
//   grad_x_n = -2 / temperature * sum over k of A_nk (x_n - c_k)
//   grad_c_k = +2 / temperature * sum over n of A_nk (x_n - c_k)
struct SoftAssignBackward {
  const double* grad_logsumexp;   // (N,); null means zero
  const double* grad_mean_logit;  // (N,); null means zero
  const float* grad_usage;        // (K,); null means zero
  Rows x;                         // (N, D)
  const float* codebook;          // (K, D)
  int64_t num_codes;              // K >= 1
  const uint8_t* mask;            // (N,); null keeps all
  const double* logsumexp;        // (N,) as soft_assign returned it
  const double* mean_logit;       // (N,) as soft_assign returned it
  double temperature;             // > 0
  const Rows* grad_x;             // (N, D) of x's dtype out; null to skip
  float* grad_codebook;           // (K, D) out; null to skip
  int threads;
};

void soft_assign_backward(const SoftAssignBackward& args);

}  // namespace vqk
