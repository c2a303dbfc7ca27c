#include "packed_search.h"

#include "double8.h"
#include "exact.h"
#include "prepare_rows.h"
#include "row_tiles.h"

namespace vqk::VQK_LEVEL {
namespace {

// Halves of a second-level cache of 512 KB: panels in use, and scores and rows of a block.
constexpr int64_t panel_block_bytes = 256 * 1024;
constexpr int64_t row_block_bytes = 256 * 1024;
constexpr int64_t most_block_rows = 96;

int64_t rounded_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }

int64_t candidate_words(int64_t num_groups) { return (num_groups + 63) / 64; }

// The parts of one worker's scratch.
struct Scratch {
  float* z;              // (block_rows / tile_rows, D, tile_rows) shifted and scaled rows
  float* maxima;         // (block_rows, num_groups)
  float* rows;           // (tile_rows, padded(D)) for prepare_rows
  double* wide;          // (padded(D),) one row of x
  RowPlan* plans;        // (block_rows,)
  uint64_t* candidates;  // (block_rows, candidate_words) one bit per group
  int64_t* certain;      // (block_rows,) numbers of rows whose distance is still to be computed
  int64_t floats;
};

Scratch lay_out(const PackedCodebook& codes, int64_t block_rows, float* memory) {
  Scratch s{};
  const auto take = [&](int64_t floats) {
    float* at = memory + s.floats;
    s.floats += rounded_up(floats, 16);
    return at;
  };
  const int64_t width = padded(codes.dim);
  s.z = take(block_rows * codes.dim);
  s.maxima = take(block_rows * codes.num_groups);
  s.rows = take(tile_rows * width);
  s.wide = reinterpret_cast<double*>(take(2 * width));
  s.plans = reinterpret_cast<RowPlan*>(take(block_rows * int64_t(sizeof(RowPlan)) / 4));
  s.candidates =
      reinterpret_cast<uint64_t*>(take(2 * block_rows * candidate_words(codes.num_groups)));
  s.certain = reinterpret_cast<int64_t*>(take(2 * block_rows));
  return s;
}

// All rows against as many bands as stay in the second-level cache, then the next bands.
void screen_rows(const PackedCodebook& codes, int64_t count, const Scratch& scratch) {
  const int64_t band_floats = codes.band_panels * codes.panel_floats;
  int64_t block = panel_block_bytes / (band_floats * int64_t(sizeof(float)));
  if (block < 1) block = 1;
  for (int64_t first = 0; first < codes.num_bands; first += block)
    for (int64_t r = 0; r < count; r += tile_rows)
      for (int64_t band = first; band < first + block && band < codes.num_bands; ++band)
        screen_band(scratch.z + r * codes.dim, codes.panels + band * band_floats,
                    codes.panels_in_band(band), codes.dim,
                    scratch.maxima + r * codes.num_groups + band * lanes, codes.num_groups);
}

// Sets the bits, in row r of scratch.candidates, of the groups that bound.h cannot exclude. A pass
// of its own over the rows of a block: the latencies of many rows then overlap.
void mark_candidates(const PackedCodebook& codes, const Scratch& scratch, int64_t r) {
  float* scores = scratch.maxima + r * codes.num_groups;
  const float *reach = codes.reach, *curve = codes.curve;
  const int64_t num_groups = codes.num_groups;
  const RowBound bound = scratch.plans[r].bound;
  const Vec slope = splat(bound.slope);

  Vec lower = splat(-__builtin_inff());
  for (int64_t g = 0; g < num_groups; g += lanes) {
    const Vec score = load(scores + g);
    const Vec error = multiply_add(slope, load(reach + g), load(curve + g));
    lower = maximum(score - error, lower);
    store(scores + g, score + error);
  }
  const Vec threshold = splat(largest_lane(lower) - 2.0f * bound.offset);
  uint64_t* words = scratch.candidates + r * candidate_words(num_groups);
  for (int64_t first = 0; first < num_groups; first += 64) {
    const int64_t end = num_groups - first < 64 ? num_groups : first + 64;
    uint64_t word = 0;
    for (int64_t g = first; g < end; g += lanes)
      word |= uint64_t(not_less(load(scores + g), threshold)) << (g - first);
    words[first / 64] = word;
  }
}

// The group whose bit alone is set, or -1.
int64_t only_candidate(const uint64_t* words, int64_t num_words) {
  int64_t found = -1;
  for (int64_t i = 0; i < num_words; ++i) {
    const uint64_t word = words[i];
    if (word == 0) continue;
    if (found >= 0 || (word & (word - 1)) != 0) return -1;
    found = 64 * i + __builtin_ctzll(word);
  }
  return found;
}

struct Winner {
  int64_t position;
  double score;
};

// The candidate of row r, if it is the only one and has room for eight codes; or -1.
int64_t only_small_group(const PackedCodebook& codes, const Scratch& scratch, int64_t r) {
  const int64_t num_words = candidate_words(codes.num_groups);
  return codes.exact_lanes == 8 ? only_candidate(scratch.candidates + r * num_words, num_words)
                                : -1;
}

// The winner of row r where float32 can tell, which is nearly always; or -1.
int64_t certain_position(const PackedCodebook& codes, const float* x, const Scratch& scratch,
                         int64_t r) {
  if (codes.metric != Metric::l2 || scratch.plans[r].state != RowState::search) return -1;
  const int64_t group = only_small_group(codes, scratch, r);
  if (group < 0) return -1;
  const int lane = certain_of_eight(codes.dim, x, codes.exact + group * 8 * codes.dim);
  return lane < 0 ? -1 : codes.first_position(group) + lane;
}

Winner score_candidates(const PackedCodebook& codes, const float* x, const Scratch& scratch,
                        int64_t r) {
  for (int64_t i = 0; i < codes.dim; i += 8) store(widen(x + i), scratch.wide + i);
  const int64_t group = only_small_group(codes, scratch, r);
  if (group >= 0) {
    double score;
    const int lane = best_of_eight(codes.metric, codes.dim, scratch.wide,
                                   codes.exact + group * 8 * codes.dim, &score);
    return {codes.first_position(group) + lane, score};
  }
  const int64_t num_words = candidate_words(codes.num_groups);
  ExactSearch search(codes.metric, codes.dim, scratch.wide);
  for (int64_t i = 0; i < num_words; ++i) {
    uint64_t word = scratch.candidates[r * num_words + i];
    for (; word != 0; word &= word - 1) {
      const int64_t group = 64 * i + __builtin_ctzll(word);
      const float* exact = codes.exact + group * codes.exact_lanes * codes.dim;
      const int64_t position = codes.first_position(group);
      for (int64_t lane = 0; lane < codes.exact_lanes; lane += 8)
        search.add(exact + lane * codes.dim, position + lane);
    }
  }
  Winner winner;
  search.best(&winner.score, &winner.position);
  return winner;
}

}  // namespace

PackedSearch::PackedSearch(const float* codebook, int64_t num_codes, int64_t dim, Metric metric,
                           const PackedCodebook* opened, int64_t num_rows, int threads)
    : codebook_(codebook),
      codes_(opened != nullptr ? *opened : PackedCodebook(num_codes, dim, metric, nullptr)) {
  if (opened == nullptr) {
    memory_.resize(codes_.bytes);
    codes_ = PackedCodebook(num_codes, dim, metric, memory_.data());
    codes_.pack(codebook, false, threads);
  }
  const int64_t rows = tile_rows;
  const int64_t row_bytes = int64_t(sizeof(float)) * (codes_.num_groups + 2 * dim + 1);
  int64_t blocks = most_block_rows / rows;
  const int64_t fits = row_block_bytes / row_bytes / rows;
  const int64_t share = num_rows / (4 * threads * rows);
  if (blocks > fits) blocks = fits;
  if (blocks > share) blocks = share;
  block_rows_ = rows * (blocks > 1 ? blocks : 1);
}

PackedSearch::~PackedSearch() = default;

int64_t PackedSearch::scratch_floats() const {
  return lay_out(codes_, block_rows_, nullptr).floats;
}

void PackedSearch::assign(const float* tile, int64_t count, float* memory, int64_t* indices,
                          float* distances, uint8_t* finite) const {
  const Scratch scratch = lay_out(codes_, block_rows_, memory);
  prepare_rows(codes_.frame, tile, count, tile_rows, scratch.rows, scratch.z, scratch.plans);
  screen_rows(codes_, count, scratch);
  for (int64_t r = 0; r < count; ++r) mark_candidates(codes_, scratch, r);
  const int64_t width = padded(codes_.dim);
  int64_t num_certain = 0;
  for (int64_t r = 0; r < count; ++r) {
    const RowState state = scratch.plans[r].state;
    if (finite != nullptr) finite[r] = state != RowState::nonfinite;
    const int64_t certain =
        codes_.num_positions > 0 ? certain_position(codes_, tile + r * width, scratch, r) : -1;
    if (certain >= 0) {
      indices[r] = codes_.ids[certain];
      scratch.certain[num_certain++] = r;
      continue;
    }
    int64_t index = 0;
    float distance = __builtin_nanf("");
    if (state != RowState::nonfinite && codes_.num_positions > 0) {
      Winner winner{0, 0.0};
      if (state == RowState::search)
        winner = score_candidates(codes_, tile + r * width, scratch, r);
      index = codes_.ids[winner.position];
      distance = float(codes_.metric == Metric::l2 ? 0.0 - winner.score : winner.score);
    }
    indices[r] = index;
    if (distances != nullptr) distances[r] = distance;
  }
  if (distances != nullptr)
    exact_distances(codes_.metric, codes_.dim, tile, codebook_, scratch.certain, num_certain,
                    indices, distances);
}

}  // namespace vqk::VQK_LEVEL
