#pragma once

#include <cstdint>

#include "vqk/metric.h"

namespace vqk {

// A codebook packed for the search ahead of time, as one block of bytes aligned to 64. Null: none.
// Ops that take one are also given the codebook, compare it with the copy in the block, and pack it
// again where they differ in any bit: a stale block costs time, never a result.
struct Prepared {
  const void* data;
  int64_t bytes;
};

struct Prepare {
  const float* codebook;  // (K, D)
  int64_t num_codes;      // K >= 1
  int64_t dim;            // D
  Metric metric;
  void* out;  // (prepared_bytes(K, D),) aligned to 64 bytes
  int threads;
};

int64_t prepared_bytes(int64_t num_codes, int64_t dim);
void prepare(const Prepare& args);

}  // namespace vqk
