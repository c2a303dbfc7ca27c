#pragma once

#include <cstdint>

#include "cell_scan.h"
#include "memory.h"
#include "prepare_rows.h"

// The pairs of a row and a cell that the search in a PrunedCodebook must look at.
namespace vqk::VQK_LEVEL {

// Where a row stands between the steps.
struct RowPlace {
  // Instead of a centre, for rows that are not searched by cells. The last one is for cosine: every
  // score of the row is 0.
  static constexpr int32_t not_finite = -1, too_far = -2, no_direction = -3;

  int32_t nearest;     // centre
  int32_t first_pair;  // of those that it has listed
};

// How many columns were looked at, and how many codes scored exactly.
struct Effort {
  int64_t columns, exact;
};

// One worker's memory for a block of rows.
struct PairBlock {
  float* rows;        // (block_rows + tile_rows, padded(D)) shifted and scaled
  float* units;       // (tile_rows, padded(D)) directions, for cosine
  float* z;           // (D, tile_rows) of one tile
  float* scores;      // (tile_rows, centres.score_stride()) of one tile
  RowPlan* plans;     // (tile_rows,)
  double* norms;      // (tile_rows,) for cosine
  LaneScores* found;  // (block_rows,)
  CellBound* bounds;  // (block_rows,)
  RowPlace* places;   // (block_rows + 1,)
  float* from;        // (2, padded(D)) rows seen from a centre
  int32_t* listed;    // (most_pairs,) cells that rows have listed, row by row
  int32_t* ordered;   // (most_pairs,) rows that have listed a cell, cell by cell
  int32_t* ends;      // (cells,) how many pairs a cell has, then where in `ordered` they end
  int64_t* certain;   // (block_rows,) rows whose distance is still to be computed
  int64_t most_pairs;

  PairBlock(const PrunedCodebook& codes, int64_t block_rows, Parts& parts);

  // Every row of `tile`, (count, padded(D)), meets all centres and the codes of the nearest one's
  // cell, and lists the other cells that its bound leaves open. Takes rows in until there may be no
  // room for the pairs of another one. Returns how many; at least one.
  int64_t meet_centres(const PrunedCodebook& codes, const float* tile, int64_t count,
                       Effort& effort) const;

  // The first `count` rows meet the cells that they have listed, cell by cell.
  void meet_listed_cells(const PrunedCodebook& codes, int64_t count, Effort& effort) const;

 private:
  void meet_own_cell(const PrunedCodebook& codes, int64_t row, const RowPlan& plan,
                     const float* row_scores, Effort& effort) const;
  const float* directions(const float* x, int64_t count, int64_t dim) const;
  void order_pairs(int64_t count, int64_t cells) const;
  Visit visit(const PrunedCodebook& codes, int64_t p, int64_t g, float* row_from) const;
};

}  // namespace vqk::VQK_LEVEL
