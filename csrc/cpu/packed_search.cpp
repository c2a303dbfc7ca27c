#include "packed_search.h"

#include "double8.h"
#include "exact.h"
#include "group_screen.h"
#include "row_tiles.h"

namespace vqk::VQK_LEVEL {
namespace {

// The parts of one worker's scratch.
struct Scratch {
  GroupScreen screen;
  double* wide;      // (padded(D),) one row of x
  int64_t* certain;  // (block_rows,) numbers of rows whose distance is still to be computed
};

Scratch lay_out(const PackedCodebook& codes, int64_t block_rows, Parts& parts) {
  const GroupScreen screen(codes, block_rows, parts);
  double* wide = reinterpret_cast<double*>(parts.take(2 * padded(codes.dim)));
  return {screen, wide, reinterpret_cast<int64_t*>(parts.take(2 * block_rows))};
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
int64_t only_small_group(const PackedCodebook& codes, const GroupScreen& screen, int64_t r) {
  return codes.exact_lanes == 8
             ? only_candidate(screen.candidates + r * screen.num_words, screen.num_words)
             : -1;
}

// The winner of row r where float32 can tell, which is nearly always; or -1.
int64_t certain_position(const PackedCodebook& codes, const float* x, const GroupScreen& screen,
                         int64_t r) {
  if (codes.metric != Metric::l2 || screen.plans[r].state != RowState::search) return -1;
  const int64_t group = only_small_group(codes, screen, r);
  if (group < 0) return -1;
  const int lane = certain_of_eight(codes.dim, x, codes.exact + group * 8 * codes.dim);
  return lane < 0 ? -1 : codes.first_position(group) + lane;
}

// The winner where positions do not follow indices: equal scores are told apart by index.
Winner score_by_index(const PackedCodebook& codes, const Scratch& scratch, int64_t r) {
  Winner winner{0, -__builtin_inf()};
  int32_t winner_id = INT32_MAX;
  scratch.screen.for_each_candidate(r, [&](int64_t candidate) {
    const float* exact = codes.exact + candidate * codes.exact_lanes * codes.dim;
    const int32_t* ids = codes.ids + codes.first_position(candidate);
    for (int64_t first = 0; first < codes.exact_lanes; first += 8) {
      alignas(64) double scores[8];
      scores_of_eight(codes.metric, codes.dim, scratch.wide, exact + first * codes.dim, scores);
      for (int64_t lane = first; lane < first + 8; ++lane) {
        const double score = scores[lane - first];
        if (!(score >= winner.score)) continue;
        if (score == winner.score && ids[lane] > winner_id) continue;
        winner = {ids - codes.ids + lane, score};
        winner_id = ids[lane];
      }
    }
  });
  return winner;
}

Winner score_candidates(const PackedCodebook& codes, const float* x, const Scratch& scratch,
                        int64_t r) {
  for (int64_t i = 0; i < codes.dim; i += 8) store(widen(x + i), scratch.wide + i);
  const int64_t group = only_small_group(codes, scratch.screen, r);
  if (group >= 0) {
    double score;
    const int lane = best_of_eight(codes.metric, codes.dim, scratch.wide,
                                   codes.exact + group * 8 * codes.dim, &score);
    return {codes.first_position(group) + lane, score};
  }
  if (!codes.ascending) return score_by_index(codes, scratch, r);
  ExactSearch search(codes.metric, codes.dim, scratch.wide);
  scratch.screen.for_each_candidate(r, [&](int64_t candidate) {
    const float* exact = codes.exact + candidate * codes.exact_lanes * codes.dim;
    const int64_t position = codes.first_position(candidate);
    for (int64_t lane = 0; lane < codes.exact_lanes; lane += 8)
      search.add(exact + lane * codes.dim, position + lane);
  });
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
  least_ = codes_.norm_of_least(1);
  block_rows_ = screened_rows(codes_, num_rows, threads);
}

PackedSearch::~PackedSearch() = default;

int64_t PackedSearch::scratch_floats() const {
  Parts parts{nullptr, 0};
  lay_out(codes_, block_rows_, parts);
  return parts.floats;
}

void PackedSearch::assign(const float* tile, int64_t count, float* memory, int64_t* indices,
                          float* distances, uint8_t* finite) const {
  Parts parts{memory, 0};
  const Scratch scratch = lay_out(codes_, block_rows_, parts);
  const GroupScreen& screen = scratch.screen;
  screen.score(codes_, tile, count, least_);
  for (int64_t r = 0; r < count; ++r) screen.mark(codes_, r);
  const int64_t width = padded(codes_.dim);
  int64_t num_certain = 0;
  for (int64_t r = 0; r < count; ++r) {
    const RowState state = screen.plans[r].state;
    if (finite != nullptr) finite[r] = state != RowState::nonfinite;
    const int64_t certain =
        codes_.num_positions > 0 ? certain_position(codes_, tile + r * width, screen, r) : -1;
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
