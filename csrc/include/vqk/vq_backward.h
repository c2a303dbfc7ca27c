#pragma once

#include <cstdint>

#include "vqk/estimator.h"
#include "vqk/metric.h"
#include "vqk/rows.h"

namespace vqk {

// Gradient of sum(grad_quantized * quantized) + grad_loss * loss, where loss is the mean over the
// valid elements of commitment_weight * (u - sg(q))^2 + codebook_weight * (sg(u) - q)^2, and
// u = x, or x / max(|x|, 1e-12) for cosine. Rows with index -1 pass grad_quantized through.
struct VqBackward {
  Rows x;                  // (N, D)
  Rows quantized;          // (N, D) float32: the unrounded code rows that vq_forward returned
  const int64_t* indices;  // (N,) as vq_forward returned them
  int64_t num_codes;       // K
  Metric metric;
  Estimator estimator;
  const Rows* grad_quantized;  // (N, D) of x's dtype; null means zero
  const float* grad_loss;      // (); null means zero
  double commitment_weight;
  double codebook_weight;
  const Rows* grad_x;    // (N, D) of x's dtype out; null to skip
  float* grad_codebook;  // (K, D) out; null to skip
  int threads;
};

void vq_backward(const VqBackward& args);

}  // namespace vqk
