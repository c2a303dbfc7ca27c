#pragma once

#include "bound.h"
#include "float8.h"
#include "pruned_codebook.h"
#include "row_tiles.h"

// What one row meets in one cell of a PrunedCodebook.
namespace vqk::VQK_LEVEL {

// z, (padded(D),), less the centre of cell g goes to `from`; returns the square of that.
VQK_INLINE float see_from(const Centres& centres, const float* z, int64_t g, float* from) {
  const int64_t width = padded(centres.dim);
  const float* centre = centres.rows + g * width;
  Float8 square{};
  for (int64_t i = 0; i < width; i += 8) {
    const Float8 apart = load_float8(z + i) - load_float8(centre + i);
    *reinterpret_cast<Float8*>(from + i) = apart;
    square += apart * apart;
  }
  return ((square[0] + square[4]) + (square[2] + square[6])) +
         ((square[1] + square[5]) + (square[3] + square[7]));
}

// Columns that are scored together: with two rows their scores and best ones fit the registers.
constexpr int columns_at_once = lanes == 16 ? 4 : 2;

// Scores of rows, each seen from the centre, with columns of a cell.
template <int rows, int count>
VQK_INLINE void score_columns(const float* const (&from)[rows], const float* column, int64_t dim,
                              Vec (&score)[rows][count]) {
  const int64_t step = (1 + dim) * lanes;
#pragma GCC unroll 2
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
    for (int c = 0; c < count; ++c) score[r][c] = load(column + c * step);
#pragma GCC unroll 4
  for (int64_t i = 0; i < dim; ++i) {
    column += lanes;
    Vec code[count];
#pragma GCC unroll 4
    for (int c = 0; c < count; ++c) code[c] = load(column + c * step);
#pragma GCC unroll 2
    for (int r = 0; r < rows; ++r) {
      const Vec value = splat(from[r][i]);
#pragma GCC unroll 4
      for (int c = 0; c < count; ++c) score[r][c] = multiply_add(value, code[c], score[r][c]);
    }
  }
}

// The best score of a cell, where it is and the second one, by lane.
struct CellScores {
  Vec best, second;
  IntVec column;
};

template <int rows, int count>
VQK_INLINE void add_columns(const PrunedCodebook& codes, const float* const (&from)[rows],
                            int64_t first, CellScores (&cell)[rows]) {
  Vec score[rows][count];
  score_columns<rows, count>(from, codes.columns + first * codes.column_floats(), codes.dim, score);
#pragma GCC unroll 2
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
    for (int c = 0; c < count; ++c) {
      cell[r].column =
          select_greater(score[r][c], cell[r].best, splat(int32_t(first + c)), cell[r].column);
      cell[r].second = maximum(cell[r].second, minimum(cell[r].best, score[r][c]));
      cell[r].best = maximum(cell[r].best, score[r][c]);
    }
}

// What is known of one row's codes, by lane: bounds of their scores V, see bound.h.
struct LaneScores {
  Vec upper, second;  // the largest upper bounds
  Vec lower;          // the largest lower bound
  IntVec column;      // where the largest upper bound is
};

VQK_INLINE LaneScores no_scores() {
  const Vec lowest = splat(-__builtin_inff());
  return {lowest, lowest, lowest, splat(int32_t(0))};
}

// One row that meets a cell. from, square: as see_from left them.
struct Visit {
  const float* from;
  float square;
  const CellBound* bound;
  LaneScores* found;
};

// Scores the codes of cell g for some rows.
template <int rows>
VQK_INLINE void scan_cell(const PrunedCodebook& codes, int64_t g, const Visit (&visits)[rows]) {
  const Vec lowest = splat(-__builtin_inff());
  const float* from[rows];
  CellScores cell[rows];
#pragma GCC unroll 2
  for (int r = 0; r < rows; ++r) {
    from[r] = visits[r].from;
    cell[r] = {lowest, lowest, splat(int32_t(0))};
  }
  int64_t column = codes.first_column[g];
  const int64_t end = codes.first_column[g + 1];
  for (; column + columns_at_once <= end; column += columns_at_once)
    add_columns<rows, columns_at_once>(codes, from, column, cell);
  for (; column < end; ++column) add_columns<rows, 1>(codes, from, column, cell);

#pragma GCC unroll 2
  for (int r = 0; r < rows; ++r) {
    LaneScores& row = *visits[r].found;
    const float square = visits[r].square;
    const float error = cell_error(*visits[r].bound, __builtin_sqrtf(square), codes.reach[g]);
    const Vec to_upper = splat(error - 0.5f * square), to_lower = splat(-error - 0.5f * square);
    const Vec upper = cell[r].best + to_upper;
    row.lower = maximum(row.lower, cell[r].best + to_lower);
    row.second = maximum(row.second, maximum(cell[r].second + to_upper, minimum(upper, row.upper)));
    row.column = select_greater(upper, row.upper, cell[r].column, row.column);
    row.upper = maximum(row.upper, upper);
  }
}

// Calls body(position) for the codes of cell g whose upper bound reaches `threshold`, and perhaps
// for places without a code. from: (padded(D),) scratch.
template <class Body>
VQK_INLINE void for_each_above(const PrunedCodebook& codes, const CellBound& bound, const float* z,
                               int64_t g, float threshold, float* from, const Body& body) {
  const float square = see_from(codes.centres, z, g, from);
  const float error = cell_error(bound, __builtin_sqrtf(square), codes.reach[g]);
  const Vec to_upper = splat(error - 0.5f * square), least = splat(threshold);
  for (int64_t c = codes.first_column[g]; c < codes.first_column[g + 1]; ++c) {
    Vec score[1][1];
    score_columns<1, 1>({from}, codes.columns + c * codes.column_floats(), codes.dim, score);
    for (unsigned open = not_less(score[0][0] + to_upper, least); open != 0; open &= open - 1)
      body(c * lanes + __builtin_ctz(open));
  }
}

}  // namespace vqk::VQK_LEVEL
