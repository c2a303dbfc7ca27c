#pragma once

#include <cstdint>

#include "vqk/rows.h"

namespace vqk {

// counts[k] and sums[k] of the rows with index k. Rows with index -1 or mask 0 are left out.
// Bit-identical at any thread count: float64 partials of 256 rows of the stable code order.
struct CodeSums {
  Rows x;                  // (N, D)
  const int64_t* indices;  // (N,)
  const uint8_t* mask;     // (N,) 0 leaves the row out; null keeps all
  int64_t num_codes;       // K
  bool unit;               // add x / max(|x|, 1e-12) instead of x
  bool skip_nonfinite;     // leave out rows with NaN or infinity
  int64_t* counts;         // (K,) out; null to skip
  float* sums;             // (K, D) out; null to skip
  int threads;
};

// Returns the first n whose index is outside [-1, K), in which case nothing is written, or -1.
int64_t code_sums(const CodeSums& args);

}  // namespace vqk
