#pragma once

#include <cstdint>

#include "vqk/estimator.h"
#include "vqk/rows.h"

namespace vqk {

// Gradient of sum(grad_quantized * quantized) + grad_loss * loss, where loss is the sum over the
// levels of the means over the valid elements of
//   commitment_weight * (r_l - sg(c_l))^2 + codebook_weight * (sg(r_l) - c_l)^2
// with r_l = x - sg(c_0 + ... + c_{l-1}), in the terms of residual.h. Masked rows pass
// grad_quantized through. The estimator sees x and the total `quantized`.
struct ResidualBackward {
  Estimator estimator;
  const Rows* x;                 // (N, D); read, as is quantized, for the rotation; else null
  const Rows* quantized;         // (N, D) float32 as residual returned it
  const Rows* remainder;         // (N, D) float32 as residual returned it; null without grad_x
  const float* code_remainders;  // (L, K, D) as residual returned it; null without grad_codebooks
  const uint8_t* mask;           // (N,) 0 masks the row; null keeps all
  int64_t num_rows;              // N
  int64_t dim;                   // D
  int64_t num_codes;             // K
  int64_t levels;                // L, of code_remainders
  bool shared;
  const Rows* grad_quantized;  // (N, D) of grad_x's dtype; null means zero
  const float* grad_loss;      // (); null means zero
  double commitment_weight;
  double codebook_weight;
  const Rows* grad_x;     // (N, D) of x's dtype out; null to skip
  float* grad_codebooks;  // (L, K, D), or (1, K, D) when shared, out; null to skip
  int threads;
};

void residual_backward(const ResidualBackward& args);

}  // namespace vqk
