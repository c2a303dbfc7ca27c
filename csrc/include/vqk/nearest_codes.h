#pragma once

#include <cstdint>

#include "vqk/metric.h"
#include "vqk/rows.h"

namespace vqk {

// The k codes with the best canonical scores F of nearest_code, best first, equal ones by ascending
// index. Places without a code have index 0 and distance NaN: all places of a non-finite row, and
// those for which there is no finite code.
struct NearestCodes {
  Rows x;                 // (N, D)
  const float* codebook;  // (K, D)
  int64_t num_codes;      // K >= 1
  Metric metric;
  int64_t k;         // in [1, K]
  int64_t* indices;  // (N, k) out
  float* distances;  // (N, k) out: F rounded to float32
  int threads;
};

void nearest_codes(const NearestCodes& args);

}  // namespace vqk
