#include "pruned_search.h"

#include "exact.h"
#include "row_tiles.h"

namespace vqk::VQK_LEVEL {
namespace {

// What a row has found so far takes 256 bytes with AVX-512: 1024 rows are a quarter of a
// second-level cache of 1 MB.
constexpr int64_t most_block_rows = 1020;

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
                   const PairBlock& block, int64_t row, float threshold) {
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
            const PairBlock& block, int64_t* indices, float* distances, uint8_t* finite,
            Effort& effort) {
  int64_t num_certain = 0;
  for (int64_t row = 0; row < count; ++row) {
    const float* x = tile + row * padded(codes.dim);
    const int32_t nearest = block.places[row].nearest;
    if (finite != nullptr) finite[row] = nearest != RowPlace::not_finite;
    Winner winner{0, __builtin_nan(""), 0};
    if (nearest == RowPlace::no_direction) {
      winner = {codes.first_id, 0.0, 0};
    } else if (nearest == RowPlace::too_far) {
      winner = score_all(codes, codebook, x);
    } else if (nearest != RowPlace::not_finite) {
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
  const PairBlock block(codes_, block_rows_, parts);
  return parts.floats;
}

Effort PrunedSearch::assign(const float* tile, int64_t count, float* memory, int64_t* indices,
                            float* distances, uint8_t* finite) const {
  Parts parts{memory, 0};
  const PairBlock block(codes_, block_rows_, parts);
  const int64_t width = padded(codes_.dim);
  Effort effort{0, 0};
  for (int64_t first = 0; first < count;) {
    const float* rows = tile + first * width;
    const int64_t taken = block.meet_centres(codes_, rows, count - first, effort);
    block.meet_listed_cells(codes_, taken, effort);
    decide(codes_, codebook_, rows, taken, block, indices + first,
           distances == nullptr ? nullptr : distances + first,
           finite == nullptr ? nullptr : finite + first, effort);
    first += taken;
  }
  return effort;
}

}  // namespace vqk::VQK_LEVEL
