#pragma once

#include "packed_codebook.h"
#include "partition.h"
#include "pruned_codebook.h"
#include "vqk/prepare.h"

namespace vqk::VQK_LEVEL {

// The parts of a block that prepare() fills: the codebook packed, and if there are cells the
// partition and the codebook by cells.
struct PreparedBlock {
  PreparedBlock(int64_t num_codes, int64_t dim, Metric metric, int64_t cells, void* memory);

  PackedCodebook packed;
  Partition partition;
  PrunedCodebook pruned;
  int64_t bytes;
};

// What a block is good for with a codebook.
struct OpenedBlock {
  // codebook: (K, D).
  OpenedBlock(const Prepared& prepared, const float* codebook, int64_t num_codes, int64_t dim,
              Metric metric, int threads);

  bool fresh;          // it is this codebook: `packed` can be used, and `pruned` if there are cells
  bool has_partition;  // `partition` can be used
  PackedCodebook packed;
  Partition partition;
  PrunedCodebook pruned;
};

}  // namespace vqk::VQK_LEVEL
