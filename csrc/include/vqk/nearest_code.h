#pragma once

#include <cstdint>

#include "vqk/metric.h"
#include "vqk/prepare.h"
#include "vqk/rows.h"

namespace vqk {

// indices[n] is the code with the best canonical score F, ties to the lowest index:
//   l2:     smallest sum over i ascending of t * t, t = double(x_i) - double(c_i)
//   cosine: largest sum over i ascending of double(x_i) * double(c_i)
// in float64, multiply and add rounded separately. A non-finite row gets index 0 and distance NaN;
// a non-finite code never wins; without a finite code every row gets index 0 and NaN.
struct NearestCode {
  Rows x;                 // (N, D)
  const float* codebook;  // (K, D)
  int64_t num_codes;      // K >= 1
  Metric metric;
  Prepared prepared;  // of this codebook; may be null
  int64_t* indices;   // (N,) out
  float* distances;   // (N,) out: F rounded to float32; null to skip
  int threads;
};

void nearest_code(const NearestCode& args);

// The share of the codes that nearest_code would look at for some rows of such a call; negative if
// it looks at all of them. The results are left alone.
double visited_share(const NearestCode& args);

}  // namespace vqk
