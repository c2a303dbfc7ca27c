#pragma once

#include <cstdint>

#include "vqk/metric.h"
#include "vqk/prepare.h"
#include "vqk/rows.h"

namespace vqk {

// Assigns as nearest_code does, or takes the codes that are given, gathers the code rows, and
// measures the error and the usage. Masked rows get index -1 and quantized = x; non-finite rows get
// index 0 and quantized NaN, and are left out of counts and sums. Deterministic at any thread
// count.
struct VqForward {
  Rows x;                 // (N, D)
  const float* codebook;  // (K, D)
  int64_t num_codes;      // K >= 1
  Metric metric;
  Prepared prepared;     // of this codebook; may be null
  const int64_t* given;  // (N,) the code of every row, in [0, K) unless it is masked; null searches
  const uint8_t* mask;   // (N,) 0 masks the row; null keeps all
  int64_t* indices;      // (N,) out
  Rows quantized;        // (N, D) float32 out
  float* mse;            // () out: mean over unmasked elements of (u - quantized)^2, where u = x,
                         // or x / max(|x|, 1e-12) for cosine; 0 without an unmasked row
  int64_t* counts;       // (K,) out
  float* sums;           // (K, D) out: sums of u per code; null to skip
  int threads;
};

void vq_forward(const VqForward& args);

}  // namespace vqk
