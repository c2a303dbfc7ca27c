#pragma once

#include <cstdint>

#include "vqk/rows.h"

namespace vqk {

// The code drawn by inverting the cumulative probability, k ascending, in the terms of
// soft_assign.h: the last one of positive probability below which at most `uniform` has been
// summed. A row that is not finite gets 0, as does every row without a finite code.
struct SampleCodes {
  Rows x;                   // (N, D)
  const float* codebook;    // (K, D)
  int64_t num_codes;        // K >= 1
  const double* logsumexp;  // (N,) as soft_assign returned it
  const double* uniform;    // (N,) in (0, 1)
  double temperature;       // > 0
  int64_t* indices;         // (N,) out
  int threads;
};

void sample_codes(const SampleCodes& args);

}  // namespace vqk
