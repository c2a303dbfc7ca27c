#pragma once

#include <cstdint>

#include "bound.h"
#include "centres.h"
#include "partition.h"
#include "simd.h"

namespace vqk::VQK_LEVEL {

// A codebook in cells, for the search that does not look at every code.
//
// A *cell* is a part of the codes with a centre; which codes are in it changes what must be looked
// at, and no result. The codes of a cell fill vectors of one code per lane, *columns*, of which a
// cell has as many as it needs. For every pair of cells a table holds what bound.h needs to leave
// out one for rows that are near the other's centre.
//
// This is a view of one block of memory, which a caller may keep: see vqk/prepare.h.
struct PrunedCodebook {
  // Places the parts in `memory`, aligned to 64 bytes; null to learn `bytes` only.
  PrunedCodebook(int64_t num_codes, int64_t dim, Metric metric, int64_t most_cells, void* memory);

  // Fills the memory by a partition of most_cells cells or fewer, which is found anew if asked.
  // codebook: (K, D).
  void pack(const float* codebook, Partition& partition, bool anew, int threads);

  // Takes over memory that pack() has filled. Returns false if it is not this level's form of a
  // codebook of this shape; that it is this codebook the caller knows.
  bool open();

  int64_t bytes;
  int64_t num_codes, dim, most_cells;
  Metric metric;
  Frame frame;          // of codes, and of rows or for cosine their directions: all by l2
  float slack;          // see bound.h
  int32_t first_id;     // the lowest index of a finite code
  int64_t num_columns;  // 0 when no code is finite
  Centres centres;      // of the cells that hold a code

  int32_t* first_column;  // (cells + 1,)
  float* reach;           // (cells,) at least |B - m_g|
  // (cells, 2, centres.stride) for rows nearest to a cell, the margin of every other one and 1/d
  // less its error, see bound.h. Infinite for the cell itself and where there is no cell.
  float* margins;
  // (num_columns, 1 + D, lanes) the scores to start from, then codes less their centre by channel
  float* columns;
  int32_t* ids;  // (num_columns, lanes) index of the code, -1 where there is none

  int64_t column_floats() const { return (1 + dim) * lanes; }
  const float* margins_of(int64_t cell) const { return margins + cell * 2 * centres.stride; }

 private:
  struct Header {
    uint64_t format;
    int64_t num_codes, dim, metric, most_cells, num_cells, num_columns, first_id;
    double scale, shift_norm, slack;
  };

  int64_t most_columns() const { return num_codes / lanes + most_cells; }
  void place_centres(const float* points, int64_t count);
  void order_by_cell(const int32_t* codes, const int32_t* cells, int64_t count);
  void pack_cell(const float* codebook, int64_t cell, float* row) const;
  void measure_slack(const FramedCodes& codes);

  Header* header_;
  double* shift_;
  float* centres_;
};

}  // namespace vqk::VQK_LEVEL
