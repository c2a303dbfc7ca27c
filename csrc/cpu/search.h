#pragma once

#include <cstdint>

#include "memory.h"
#include "row_sample.h"
#include "vqk/metric.h"
#include "vqk/prepare.h"

namespace vqk::VQK_LEVEL {

class CellChoice;
class PackedSearch;
class StreamedSearch;
struct OpenedBlock;

// Nearest codes of blocks of rows, by the search that suits them.
class Search {
 public:
  // codebook: (K, D), kept by reference. num_rows: N, of all calls of assign together, of which
  // `sample` has some.
  Search(const float* codebook, int64_t num_codes, int64_t dim, Metric metric,
         const Prepared& prepared, int64_t num_rows, const RowSample& sample, int threads);
  ~Search();
  Search(const Search&) = delete;
  Search& operator=(const Search&) = delete;

  // Rows per call of assign that balance the workers and fit the caches.
  int64_t block_rows() const;
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
  void assign_streamed(const float* tile, int64_t count, int64_t* indices, float* distances,
                       uint8_t* finite) const;

  const float* codebook_;
  int64_t num_codes_, dim_;
  Metric metric_;
  int64_t num_rows_;
  int threads_;
  Owned<const OpenedBlock> opened_;
  Owned<const CellChoice> cells_;
  // One of the two unless `cells_` has a search.
  Owned<const PackedSearch> packed_;
  Owned<const StreamedSearch>
      streamed_;  // its only block is all rows, and it shares its work out itself
};

}  // namespace vqk::VQK_LEVEL
