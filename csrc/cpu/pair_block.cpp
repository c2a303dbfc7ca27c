#include "pair_block.h"

#include "row_norms.h"

namespace vqk::VQK_LEVEL {
namespace {

// Pairs per row that there is room for. Rows that list more are searched in smaller blocks.
constexpr int64_t pairs_per_row = 16;

// Lists the cells that a row's scores with centres do not exclude. Returns how many. `within` is
// finite: neither the row's own cell nor a place without a centre is listed.
int64_t list_cells(const Centres& centres, const float* scores, const float* margins,
                   const RowMargin& margin, int32_t* cells) {
  const Vec own = splat(margin.own), within = splat(margin.within);
  int64_t listed = 0;
  for (int64_t first = 0; first < centres.stride; first += 64) {
    const int64_t end = centres.stride - first < 64 ? centres.stride : first + 64;
    uint64_t word = 0;
    for (int64_t g = first; g < end; g += lanes) {
      const Vec apart = own - load(scores + g);
      const Vec bound = multiply_add(apart, load(margins + centres.stride + g), load(margins + g));
      word |= uint64_t(not_less(within, bound)) << (g - first);
    }
    for (; word != 0; word &= word - 1) cells[listed++] = int32_t(first + __builtin_ctzll(word));
  }
  return listed;
}

}  // namespace

PairBlock::PairBlock(const PrunedCodebook& codes, int64_t block_rows, Parts& parts) {
  const int64_t cells = codes.centres.count, width = padded(codes.dim);
  most_pairs = pairs_per_row * block_rows + cells;
  rows = parts.take((block_rows + tile_rows) * width);
  units = parts.take(tile_rows * width);
  z = parts.take(tile_rows * codes.dim);
  scores = parts.take(tile_rows * codes.centres.score_stride());
  norms = reinterpret_cast<double*>(parts.take(2 * tile_rows));
  plans = reinterpret_cast<RowPlan*>(parts.take(tile_rows * int64_t(sizeof(RowPlan)) / 4));
  found = reinterpret_cast<LaneScores*>(parts.take(block_rows * int64_t(sizeof(LaneScores)) / 4));
  bounds = reinterpret_cast<CellBound*>(parts.take(block_rows * int64_t(sizeof(CellBound)) / 4));
  places =
      reinterpret_cast<RowPlace*>(parts.take((block_rows + 1) * int64_t(sizeof(RowPlace)) / 4));
  from = parts.take(2 * width);
  listed = reinterpret_cast<int32_t*>(parts.take(most_pairs));
  ordered = reinterpret_cast<int32_t*>(parts.take(most_pairs));
  ends = reinterpret_cast<int32_t*>(parts.take(cells));
  certain = reinterpret_cast<int64_t*>(parts.take(2 * block_rows));
}

// The nearest centre, the codes of its cell, and the list of the other cells.
void PairBlock::meet_own_cell(const PrunedCodebook& codes, int64_t row, const RowPlan& plan,
                              const float* row_scores, Effort& effort) const {
  const Centres& centres = codes.centres;
  RowPlace& place = places[row];
  int64_t nearest;
  const float score = best_score(row_scores, centres.stride, &nearest);
  const CellBound bound =
      cell_bound(plan.norm + (codes.metric == Metric::cosine ? codes.frame.scale : 0.0),
                 codes.slack, codes.dim);
  const float square = see_from(centres, rows + row * padded(codes.dim), nearest, from);
  LaneScores own = no_scores();
  scan_cell<1>(codes, nearest, {{from, square, &bound, &own}});
  effort.columns += codes.first_column[nearest + 1] - codes.first_column[nearest];
  const RowMargin margin =
      row_margin(plan.bound, bound, largest_lane(own.lower), score, centres.reach[nearest]);
  int32_t* own_list = listed + place.first_pair;
  const int64_t count =
      list_cells(centres, row_scores, codes.margins_of(nearest), margin, own_list);
  for (int64_t i = 0; i < count; ++i) ++ends[own_list[i]];
  place.nearest = int32_t(nearest);
  places[row + 1].first_pair = place.first_pair + int32_t(count);
  bounds[row] = bound;
  found[row] = own;
}

// x / |x|; zero for zero, and NaN somewhere in a row that is not finite.
const float* PairBlock::directions(const float* x, int64_t count, int64_t dim) const {
  const int64_t width = padded(dim);
  tile_norms(x, count, dim, norms);
  for (int64_t r = 0; r < count; ++r)
    for (int64_t i = 0; i < width; ++i)
      units[r * width + i] = float(double(x[r * width + i]) / (norms[r] > 0.0 ? norms[r] : 1.0));
  return units;
}

int64_t PairBlock::meet_centres(const PrunedCodebook& codes, const float* tile, int64_t count,
                                Effort& effort) const {
  const int64_t width = padded(codes.dim), cells = codes.centres.count;
  for (int64_t g = 0; g < cells; ++g) ends[g] = 0;
  places[0].first_pair = 0;
  for (int64_t first = 0; first < count; first += tile_rows) {
    const int64_t some = count - first < tile_rows ? count - first : tile_rows;
    const float* x = tile + first * width;
    if (codes.metric == Metric::cosine) x = directions(x, some, codes.dim);
    prepare_rows(codes.frame, x, some, tile_rows, rows + first * width, z, plans);
    codes.centres.score(z, scores);
    for (int64_t r = 0; r < some; ++r) {
      const RowPlan& plan = plans[r];
      const int64_t row = first + r;
      RowPlace& place = places[row];
      if (most_pairs - place.first_pair < cells) return row;
      places[row + 1].first_pair = place.first_pair;
      if (plan.state == RowState::nonfinite)
        place.nearest = RowPlace::not_finite;
      else if (codes.metric == Metric::cosine && norms[r] == 0.0)
        place.nearest = RowPlace::no_direction;
      else if (!(plan.norm < most_norm_in_cells))
        place.nearest = RowPlace::too_far;
      else
        meet_own_cell(codes, row, plan, scores + r * codes.centres.score_stride(), effort);
    }
  }
  return count;
}

// Sorts the pairs by cell. Afterwards those of cell g end at ends[g] and begin where those of g - 1
// end.
void PairBlock::order_pairs(int64_t count, int64_t cells) const {
  int32_t begin = 0;
  for (int64_t g = 0; g < cells; ++g) {
    const int32_t pairs = ends[g];
    ends[g] = begin;
    begin += pairs;
  }
  for (int64_t row = 0; row < count; ++row)
    for (int32_t p = places[row].first_pair; p < places[row + 1].first_pair; ++p)
      ordered[ends[listed[p]]++] = int32_t(row);
}

void PairBlock::meet_listed_cells(const PrunedCodebook& codes, int64_t count,
                                  Effort& effort) const {
  const int64_t width = padded(codes.dim), cells = codes.centres.count;
  order_pairs(count, cells);
  for (int64_t g = 0, p = 0; g < cells; ++g) {
    effort.columns += (ends[g] - p) * (codes.first_column[g + 1] - codes.first_column[g]);
    for (; p + 2 <= ends[g]; p += 2)
      scan_cell<2>(codes, g, {visit(codes, p, g, from), visit(codes, p + 1, g, from + width)});
    for (; p < ends[g]; ++p) scan_cell<1>(codes, g, {visit(codes, p, g, from)});
  }
}

// The pair in place p of those that are ordered.
Visit PairBlock::visit(const PrunedCodebook& codes, int64_t p, int64_t g, float* row_from) const {
  const int64_t row = ordered[p];
  const float square = see_from(codes.centres, rows + row * padded(codes.dim), g, row_from);
  return {row_from, square, bounds + row, found + row};
}

}  // namespace vqk::VQK_LEVEL
