#pragma once

#include <cstdint>

#include "packed_codebook.h"

namespace vqk::VQK_LEVEL {

// The search of many rows: screen every code of the packed codebook, certify, score exactly what
// is left.
class PackedSearch {
 public:
  // codebook: (K, D). `opened` holds it packed already; null packs it.
  PackedSearch(const float* codebook, int64_t num_codes, int64_t dim, Metric metric,
               const PackedCodebook* opened, int64_t num_rows, int threads);
  ~PackedSearch();

  // Rows per call of assign that balance the workers and fit the caches.
  int64_t block_rows() const { return block_rows_; }
  // Floats of scratch per worker, a multiple of 16.
  int64_t scratch_floats() const;

  // Assigns `count` <= block_rows() rows.
  //   tile:      (count, padded(D)) float32, aligned to 32 bytes, padding zero
  //   scratch:   (scratch_floats(),) aligned to 64 bytes
  //   indices:   (count,) out
  //   distances: (count,) out; null to skip
  //   finite:    (count,) out, 0 for a row with NaN or infinity; null to skip
  void assign(const float* tile, int64_t count, float* scratch, int64_t* indices, float* distances,
              uint8_t* finite) const;

 private:
  const float* codebook_;
  Buffer<char> memory_;  // of codes_, unless they were opened
  PackedCodebook codes_;
  float least_;  // codes_.norm_of_least(1)
  int64_t block_rows_;
};

}  // namespace vqk::VQK_LEVEL
