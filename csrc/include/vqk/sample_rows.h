#pragma once

#include <cstdint>

#include "vqk/rows.h"

namespace vqk {

// Distinct rows of a batch, one from each of `count` equal strata of the positions that count, in
// hashed order: the usable (finite) ones first, repeated to the end. Positions and order are those
// of ops/sample_rows.py.
struct SampleRows {
  Rows x;                // (N, D), N >= 1
  const uint8_t* mask;   // (N,) 0 leaves the position out; null keeps all
  const int64_t* clock;  // ()
  int64_t count;         // C, 1 to 2^31 - 1
  int64_t seed;
  float* rows;     // (C, D) out
  int64_t* found;  // () out: usable rows
};

void sample_rows(const SampleRows& args);

}  // namespace vqk
