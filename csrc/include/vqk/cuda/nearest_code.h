#pragma once

#include <cstdint>

#include "vqk/cuda/stream.h"
#include "vqk/metric.h"
#include "vqk/rows.h"

namespace vqk::cuda {

// The search of vqk/nearest_code.h, bit for bit, with all pointers on the device.
struct NearestCode {
  Rows x;                 // (N, D)
  const float* codebook;  // (K, D)
  int64_t num_codes;      // K, 1 to 2^31 - 1
  Metric metric;
  void* workspace;   // (nearest_code_workspace(N, K),) bytes, aligned to 16
  int64_t* indices;  // (N,) out
  float* distances;  // (N,) out: F rounded to float32; null to skip
  Stream stream;
};

// O(N) bytes, whatever K is.
int64_t nearest_code_workspace(int64_t num_rows, int64_t num_codes);
void nearest_code(const NearestCode& args);

}  // namespace vqk::cuda
