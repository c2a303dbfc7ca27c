#pragma once

#include <cstdint>

#include "vqk/metric.h"

namespace vqk {

// What was derived from a codebook ahead of a search, as one block of bytes aligned to 64; null:
// nothing. Ops that take one are also given the codebook, compare it with the copy in the block,
// and derive everything again where they differ in any bit: a stale block costs time, never a
// result. Of a stale block, or one of partition(), only the partition is used.
struct Prepared {
  const void* data;
  int64_t bytes;
};

// Packs a codebook for both searches: the one that looks at every code, and with `cells` > 0 the
// one that leaves out cells of them.
struct Prepare {
  const float* codebook;  // (K, D)
  int64_t num_codes;      // K >= 1
  int64_t dim;            // D
  Metric metric;
  int64_t cells;  // in [0, K]
  void* out;      // (prepared_bytes(K, D, cells),) aligned to 64 bytes
  int threads;
};

int64_t prepared_bytes(int64_t num_codes, int64_t dim, int64_t cells);
void prepare(const Prepare& args);

// Cells alone, for a codebook that will move; for either metric.
int64_t partition_bytes(int64_t dim, int64_t cells);
void partition(const Prepare& args);

// How many cells suit a codebook; 0 where looking at every code is cheap.
int64_t suitable_cells(int64_t num_codes, int64_t dim);

// Whether searches found that what partition() made no longer fits the codebook and the rows.
bool is_worn(const Prepared& partition, int64_t dim);

}  // namespace vqk
