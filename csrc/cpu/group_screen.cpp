#include "group_screen.h"

#include "row_tiles.h"

namespace vqk::VQK_LEVEL {
namespace {

// Halves of a second-level cache of 512 KB: panels in use, and scores and rows of a block.
constexpr int64_t panel_block_bytes = 256 * 1024;
constexpr int64_t row_block_bytes = 256 * 1024;
constexpr int64_t most_block_rows = 96;

// Makes `value` one of the `count` largest, whose smallest one is at the root of the heap.
void replace_smallest(float* heap, int64_t count, float value) {
  int64_t at = 0;
  for (int64_t child = 1; child < count; child = 2 * at + 1) {
    if (child + 1 < count && heap[child + 1] < heap[child]) ++child;
    if (!(heap[child] < value)) break;
    heap[at] = heap[child];
    at = child;
  }
  heap[at] = value;
}

}  // namespace

GroupScreen::GroupScreen(const PackedCodebook& codes, int64_t block_rows, Parts& parts)
    : num_words((codes.num_groups + 63) / 64) {
  z = parts.take(block_rows * codes.dim);
  maxima = parts.take(block_rows * codes.num_groups);
  rows = parts.take(tile_rows * padded(codes.dim));
  plans = reinterpret_cast<RowPlan*>(parts.take(block_rows * int64_t(sizeof(RowPlan)) / 4));
  groups = reinterpret_cast<int64_t*>(parts.take(2 * block_rows));
  candidates = reinterpret_cast<uint64_t*>(parts.take(2 * block_rows * num_words));
}

// All rows against as many bands as stay in the second-level cache, then the next bands.
void GroupScreen::score(const PackedCodebook& codes, const float* tile, int64_t count,
                        float least) const {
  prepare_rows(codes.frame, tile, count, tile_rows, rows, z, plans);
  for (int64_t r = 0; r < count; r += tile_rows) {
    const int64_t end = count - r < tile_rows ? count : r + tile_rows;
    float norm = 0.0f;
    for (int64_t i = r; i < end; ++i) norm = plans[i].norm > norm ? plans[i].norm : norm;
    const int64_t bands = codes.bands_within(norm, least);
    for (int64_t i = r; i < end; ++i) groups[i] = bands * lanes;
  }
  const int64_t band_floats = codes.band_panels * codes.panel_floats;
  int64_t block = panel_block_bytes / (band_floats * int64_t(sizeof(float)));
  if (block < 1) block = 1;
  for (int64_t first = 0; first < codes.num_bands; first += block)
    for (int64_t r = 0; r < count; r += tile_rows)
      for (int64_t band = first; band < first + block && band * lanes < groups[r]; ++band)
        screen_band(z + r * codes.dim, codes.panels + band * band_floats,
                    codes.panels_in_band(band), codes.dim,
                    maxima + r * codes.num_groups + band * lanes, codes.num_groups);
}

void GroupScreen::mark(const PackedCodebook& codes, int64_t r) const {
  float* scores = maxima + r * codes.num_groups;
  const float *reach = codes.reach, *curve = codes.curve;
  const int64_t num_groups = groups[r];
  const Vec slope = splat(plans[r].bound.slope);
  Vec lower = splat(-__builtin_inff());
  for (int64_t g = 0; g < num_groups; g += lanes) {
    const Vec score = load(scores + g);
    const Vec error = multiply_add(slope, load(reach + g), load(curve + g));
    lower = maximum(score - error, lower);
    store(scores + g, score + error);
  }
  mark_from(codes, r, largest_lane(lower));
}

// Every group holds a code that reaches the group's lower bound: where `best` groups are above an
// upper bound, so are as many codes.
void GroupScreen::mark(const PackedCodebook& codes, int64_t r, int64_t best, float* lower) const {
  float* scores = maxima + r * codes.num_groups;
  const float *reach = codes.reach, *curve = codes.curve;
  const int64_t num_groups = groups[r];
  const Vec slope = splat(plans[r].bound.slope);
  for (int64_t i = 0; i < best; ++i) lower[i] = -__builtin_inff();
  for (int64_t g = 0; g < num_groups; g += lanes) {
    const Vec score = load(scores + g);
    const Vec error = multiply_add(slope, load(reach + g), load(curve + g));
    alignas(64) float reached[lanes];
    store(reached, score - error);
    for (unsigned large = not_less(score - error, splat(lower[0])); large != 0;
         large &= large - 1) {
      const float value = reached[__builtin_ctz(large)];
      if (value > lower[0]) replace_smallest(lower, best, value);
    }
    store(scores + g, score + error);
  }
  mark_from(codes, r, lower[0]);
}

// A pass of its own over the rows of a block: the latencies of many rows then overlap.
void GroupScreen::mark_from(const PackedCodebook& codes, int64_t r, float lower) const {
  const int64_t num_groups = groups[r];
  const float* upper = maxima + r * codes.num_groups;
  const Vec threshold = splat(lower - 2.0f * plans[r].bound.offset);
  uint64_t* words = candidates + r * num_words;
  for (int64_t first = 0; first < codes.num_groups; first += 64) {
    const int64_t end = num_groups - first < 64 ? num_groups : first + 64;
    uint64_t word = 0;
    for (int64_t g = first; g < end; g += lanes)
      word |= uint64_t(not_less(load(upper + g), threshold)) << (g - first);
    words[first / 64] = word;
  }
}

int64_t screened_rows(const PackedCodebook& codes, int64_t num_rows, int threads) {
  const int64_t rows = tile_rows;
  const int64_t row_bytes = int64_t(sizeof(float)) * (codes.num_groups + 2 * codes.dim + 1);
  int64_t blocks = most_block_rows / rows;
  const int64_t fits = row_block_bytes / row_bytes / rows;
  const int64_t share = num_rows / (4 * threads * rows);
  if (blocks > fits) blocks = fits;
  if (blocks > share) blocks = share;
  return rows * (blocks > 1 ? blocks : 1);
}

}  // namespace vqk::VQK_LEVEL
