#pragma once

#include <cstdint>

#include "vqk/rows.h"

namespace vqk {

// out[n] = codebook[indices[n]]; index -1 gives a zero row.
struct Lookup {
  const int64_t* indices;  // (N,)
  const float* codebook;   // (K, D)
  int64_t num_codes;       // K
  Rows out;                // (N, D) float32
  int threads;
};

// Returns the first n whose index is outside [-1, K), in which case `out` is not written, or -1.
int64_t lookup(const Lookup& args);

}  // namespace vqk
