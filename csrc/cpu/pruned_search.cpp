#include "pruned_search.h"

#include "cell_scan.h"
#include "double8.h"
#include "exact.h"
#include "prepare_rows.h"
#include "row_tiles.h"

namespace vqk::VQK_LEVEL {
namespace {

using Effort = PrunedSearch::Effort;

// What a row has found so far takes 256 bytes with AVX-512: 1024 rows are a quarter of a
// second-level cache of 1 MB.
constexpr int64_t most_block_rows = 1020;
// Pairs per row that there is room for. Rows that list more are searched in smaller blocks.
constexpr int64_t pairs_per_row = 16;

// Where a row stands between the steps.
struct RowPlace {
  int32_t nearest;     // centre
  int32_t first_pair;  // of those that it has listed
};

// One worker's memory for a block of rows.
struct Block {
  float* rows;        // (block_rows + tile_rows, padded(D)) shifted and scaled
  float* units;       // (tile_rows, padded(D)) directions, for cosine
  float* z;           // (D, tile_rows) of one tile
  float* scores;      // (tile_rows, centres.score_stride()) of one tile
  RowPlan* plans;     // (tile_rows,)
  LaneScores* found;  // (block_rows,)
  CellBound* bounds;  // (block_rows,)
  RowPlace* places;   // (block_rows + 1,)
  float* from;        // (padded(D),) a row seen from a centre
  int32_t* listed;    // (most_pairs,) cells that rows have listed, row by row
  int32_t* ordered;   // (most_pairs,) rows that have listed a cell, cell by cell
  int32_t* ends;      // (cells + 1,) where in `ordered` the pairs of a cell begin, then end
  int64_t* certain;   // (block_rows,) rows whose distance is still to be computed
  int64_t most_pairs;

  Block(const PrunedCodebook& codes, int64_t block_rows, Parts& parts) {
    const int64_t cells = codes.centres.count, width = padded(codes.dim);
    most_pairs = pairs_per_row * block_rows + cells;
    rows = parts.take((block_rows + tile_rows) * width);
    units = parts.take(tile_rows * width);
    z = parts.take(tile_rows * codes.dim);
    scores = parts.take(tile_rows * codes.centres.score_stride());
    plans = reinterpret_cast<RowPlan*>(parts.take(tile_rows * int64_t(sizeof(RowPlan)) / 4));
    found = reinterpret_cast<LaneScores*>(parts.take(block_rows * int64_t(sizeof(LaneScores)) / 4));
    bounds = reinterpret_cast<CellBound*>(parts.take(block_rows * int64_t(sizeof(CellBound)) / 4));
    places =
        reinterpret_cast<RowPlace*>(parts.take((block_rows + 1) * int64_t(sizeof(RowPlace)) / 4));
    from = parts.take(width);
    listed = reinterpret_cast<int32_t*>(parts.take(most_pairs));
    ordered = reinterpret_cast<int32_t*>(parts.take(most_pairs));
    ends = reinterpret_cast<int32_t*>(parts.take(cells + 1));
    certain = reinterpret_cast<int64_t*>(parts.take(2 * block_rows));
  }
};

// Lists the cells that a row's scores with centres do not exclude. Returns how many.
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

// The best code offered so far, by the exact score.
struct Winner {
  int32_t id;
  double score;
  int64_t offered;

  VQK_INLINE void offer(int32_t candidate, const PrunedCodebook& codes, const float* codebook,
                        const float* x) {
    if (candidate < 0) return;
    ++offered;
    const double found =
        exact_score(codes.metric, codes.dim, x, codebook + int64_t(candidate) * codes.dim);
    if (found > score || (found == score && candidate < id)) *this = {candidate, found, offered};
  }
};

constexpr Winner no_winner{INT32_MAX, -__builtin_inf(), 0};

// Values of RowPlace::nearest for rows that are not searched by cells.
constexpr int32_t not_finite = -1, too_far = -2, no_direction = -3;

// The nearest centre, the codes of its cell, and the list of the other cells.
void meet_own_cell(const PrunedCodebook& codes, const Block& block, int64_t row,
                   const RowPlan& plan, const float* scores, Effort& effort) {
  const Centres& centres = codes.centres;
  RowPlace& place = block.places[row];
  int64_t nearest;
  const float score = best_score(scores, centres.stride, &nearest);
  const CellBound bound =
      cell_bound(plan.norm + (codes.metric == Metric::cosine ? codes.frame.scale : 0.0),
                 codes.slack, codes.dim);
  const float square = see_from(centres, block.rows + row * padded(codes.dim), nearest, block.from);
  LaneScores found = no_scores();
  scan_cell(codes, bound, block.from, square, nearest, found);
  effort.columns += codes.first_column[nearest + 1] - codes.first_column[nearest];
  const RowMargin margin =
      row_margin(plan.bound, bound, largest_lane(found.lower), score, centres.reach[nearest]);
  int32_t* listed = block.listed + place.first_pair;
  const int64_t count = list_cells(centres, scores, codes.margins_of(nearest), margin, listed);
  for (int64_t i = 0; i < count; ++i) ++block.ends[listed[i]];
  place.nearest = int32_t(nearest);
  block.places[row + 1].first_pair = place.first_pair + int32_t(count);
  block.bounds[row] = bound;
  block.found[row] = found;
}

// The directions of `count` rows; zero for zero, NaN where a row is not finite.
void unit_rows(const float* x, int64_t count, int64_t width, float* units) {
  for (int64_t r = 0; r < count; ++r) {
    Double8 square{};
    for (int64_t i = 0; i < width; i += 8) {
      const Double8 value = widen(x + r * width + i);
      square = square + value * value;
    }
    const double norm = __builtin_sqrt(sum_lanes(square));
    const Double8 inverse =
        splat(norm < __builtin_inf() ? 1.0 / (norm > 0.0 ? norm : 1.0) : __builtin_nan(""));
    for (int64_t i = 0; i < width; i += 8)
      narrow(widen(x + r * width + i) * inverse, units + r * width + i);
  }
}

bool is_zero(const float* row, int64_t width) {
  for (int64_t i = 0; i < width; ++i)
    if (row[i] != 0.0f) return false;
  return true;
}

// Takes rows in until there is no room for more pairs. Returns how many.
int64_t meet_centres(const PrunedCodebook& codes, const float* tile, int64_t count,
                     const Block& block, Effort& effort) {
  const int64_t width = padded(codes.dim), cells = codes.centres.count;
  for (int64_t g = 0; g <= cells; ++g) block.ends[g] = 0;
  block.places[0].first_pair = 0;
  for (int64_t first = 0; first < count; first += tile_rows) {
    const int64_t rows = count - first < tile_rows ? count - first : tile_rows;
    const float* x = tile + first * width;
    if (codes.metric == Metric::cosine) {
      unit_rows(x, rows, width, block.units);
      x = block.units;
    }
    prepare_rows(codes.frame, x, rows, tile_rows, block.rows + first * width, block.z, block.plans);
    codes.centres.score(block.z, block.scores);
    for (int64_t r = 0; r < rows; ++r) {
      const RowPlan& plan = block.plans[r];
      const int64_t row = first + r;
      RowPlace& place = block.places[row];
      if (block.most_pairs - place.first_pair < cells) return row;
      block.places[row + 1].first_pair = place.first_pair;
      if (plan.state == RowState::nonfinite)
        place.nearest = not_finite;
      else if (codes.metric == Metric::cosine && is_zero(x + r * width, width))
        place.nearest = no_direction;
      else if (!(plan.norm < most_norm_in_cells))
        place.nearest = too_far;
      else
        meet_own_cell(codes, block, row, plan, block.scores + r * codes.centres.score_stride(),
                      effort);
    }
  }
  return count;
}

// Sorts the pairs by cell. Afterwards those of cell g end at ends[g] and begin where those of g - 1
// end.
void order_pairs(const Block& block, int64_t rows, int64_t cells) {
  int32_t begin = 0;
  for (int64_t g = 0; g < cells; ++g) {
    const int32_t count = block.ends[g];
    block.ends[g] = begin;
    begin += count;
  }
  for (int64_t row = 0; row < rows; ++row)
    for (int32_t p = block.places[row].first_pair; p < block.places[row + 1].first_pair; ++p)
      block.ordered[block.ends[block.listed[p]]++] = int32_t(row);
}

void meet_listed_cells(const PrunedCodebook& codes, const Block& block, Effort& effort) {
  const int64_t width = padded(codes.dim), cells = codes.centres.count;
  for (int64_t g = 0, p = 0; g < cells; ++g) {
    effort.columns += (block.ends[g] - p) * (codes.first_column[g + 1] - codes.first_column[g]);
    for (; p < block.ends[g]; ++p) {
      const int64_t row = block.ordered[p];
      const float square = see_from(codes.centres, block.rows + row * width, g, block.from);
      scan_cell(codes, block.bounds[row], block.from, square, g, block.found[row]);
    }
  }
}

// The position of the winner where float32 can tell, or -1.
int64_t certain_position(const LaneScores& found, float lower) {
  const Vec least = splat(lower);
  const unsigned open = not_less(found.upper, least);
  if (not_less(found.second, least) != 0 || (open & (open - 1)) != 0) return -1;
  alignas(64) int32_t columns[lanes];
  store(columns, found.column);
  const int lane = __builtin_ctz(open);
  return int64_t(columns[lane]) * lanes + lane;
}

// The winner among the codes of all cells that a row has met whose bound reaches `threshold`.
Winner score_close(const PrunedCodebook& codes, const float* codebook, const float* x,
                   const Block& block, int64_t row, float threshold) {
  Winner winner = no_winner;
  const RowPlace& place = block.places[row];
  const auto offer_cell = [&](int64_t g) {
    for_each_above(
        codes, block.bounds[row], block.rows + row * padded(codes.dim), g, threshold, block.from,
        [&](int64_t position) { winner.offer(codes.ids[position], codes, codebook, x); });
  };
  offer_cell(place.nearest);
  for (int32_t p = place.first_pair; p < block.places[row + 1].first_pair; ++p)
    offer_cell(block.listed[p]);
  return winner;
}

Winner score_all(const PrunedCodebook& codes, const float* codebook, const float* x) {
  Winner winner = no_winner;
  for (int64_t position = 0; position < codes.num_columns * lanes; ++position)
    winner.offer(codes.ids[position], codes, codebook, x);
  return winner;
}

void decide(const PrunedCodebook& codes, const float* codebook, const float* tile, int64_t count,
            const Block& block, int64_t* indices, float* distances, uint8_t* finite,
            Effort& effort) {
  int64_t num_certain = 0;
  for (int64_t row = 0; row < count; ++row) {
    const float* x = tile + row * padded(codes.dim);
    const int32_t nearest = block.places[row].nearest;
    if (finite != nullptr) finite[row] = nearest != not_finite;
    Winner winner{0, __builtin_nan(""), 0};
    if (nearest == no_direction) {
      winner = {codes.first_id, 0.0, 0};
    } else if (nearest == too_far) {
      winner = score_all(codes, codebook, x);
    } else if (nearest != not_finite) {
      const LaneScores& found = block.found[row];
      const float lower = largest_lane(found.lower);
      const int64_t position = certain_position(found, lower);
      if (position >= 0) {
        indices[row] = codes.ids[position];
        block.certain[num_certain++] = row;
        continue;
      }
      winner = score_close(codes, codebook, x, block, row, lower);
    }
    effort.exact += winner.offered;
    indices[row] = winner.id;
    if (distances != nullptr)
      distances[row] = float(codes.metric == Metric::l2 ? 0.0 - winner.score : winner.score);
  }
  if (distances != nullptr)
    exact_distances(codes.metric, codes.dim, tile, codebook, block.certain, num_certain, indices,
                    distances);
}

}  // namespace

PrunedSearch::PrunedSearch(const float* codebook, const PrunedCodebook& codes, int64_t num_rows,
                           int threads)
    : codebook_(codebook), codes_(codes) {
  const int64_t share = num_rows / (4 * threads);
  block_rows_ = share < most_block_rows ? share : most_block_rows;
  block_rows_ = (block_rows_ / tile_rows + 1) * tile_rows;
}

int64_t PrunedSearch::scratch_floats() const {
  Parts parts{nullptr, 0};
  const Block block(codes_, block_rows_, parts);
  return parts.floats;
}

PrunedSearch::Effort PrunedSearch::assign(const float* tile, int64_t count, float* memory,
                                          int64_t* indices, float* distances,
                                          uint8_t* finite) const {
  Parts parts{memory, 0};
  const Block block(codes_, block_rows_, parts);
  const int64_t width = padded(codes_.dim);
  Effort effort{0, 0};
  for (int64_t first = 0; first < count;) {
    const float* rows = tile + first * width;
    const int64_t taken = meet_centres(codes_, rows, count - first, block, effort);
    order_pairs(block, taken, codes_.centres.count);
    meet_listed_cells(codes_, block, effort);
    decide(codes_, codebook_, rows, taken, block, indices + first,
           distances == nullptr ? nullptr : distances + first,
           finite == nullptr ? nullptr : finite + first, effort);
    first += taken;
  }
  return effort;
}

}  // namespace vqk::VQK_LEVEL
