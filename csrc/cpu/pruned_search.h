#pragma once

#include <cstdint>

#include "pair_block.h"

namespace vqk::VQK_LEVEL {

// The search that leaves out cells of codes. A block of rows meets the centres and each row the
// codes of its nearest one; then bound.h tells which other cells may hold something nearer, and
// these pairs of row and cell are worked off cell by cell, whose codes then lie in the first-level
// cache. What float32 cannot decide is scored exactly. The same bits as PackedSearch.
class PrunedSearch {
 public:
  // codebook: (K, D), kept by reference. codes: of this codebook, num_columns > 0. num_rows: N.
  PrunedSearch(const float* codebook, const PrunedCodebook& codes, int64_t num_rows, int threads);

  // Rows per call of assign that balance the workers and fit the caches.
  int64_t block_rows() const { return block_rows_; }
  // Floats of scratch per worker, a multiple of 16.
  int64_t scratch_floats() const;

  // Assigns `count` <= block_rows() rows as Search::assign does.
  Effort assign(const float* tile, int64_t count, float* scratch, int64_t* indices,
                float* distances, uint8_t* finite) const;

 private:
  const float* codebook_;
  const PrunedCodebook& codes_;
  int64_t block_rows_;
};

}  // namespace vqk::VQK_LEVEL
