#include "vqk/nearest_codes.h"

#include "double8.h"
#include "exact.h"
#include "group_screen.h"
#include "kernels.h"
#include "memory.h"
#include "parallel.h"
#include "row_tiles.h"

namespace vqk::VQK_LEVEL {
namespace {

struct Found {
  double score;  // as in ExactSearch
  int64_t index;
};

bool better(const Found& a, const Found& b) {
  return a.score > b.score || (a.score == b.score && a.index < b.index);
}

// The best codes offered so far: a heap with the worst of them at its root.
class BestCodes {
 public:
  // heap: (count,) scratch
  BestCodes(Found* heap, int64_t count) : heap_(heap), count_(count) {
    for (int64_t i = 0; i < count; ++i) heap_[i] = {-__builtin_inf(), INT64_MAX};
  }

  // Whether a code of this score may be among the best; false for NaN.
  bool admits(double score) const { return score >= heap_[0].score; }

  // Takes the code if it is among the best.
  bool offer(const Found& found) {
    if (!better(found, heap_[0])) return false;
    sink(found, count_);
    return true;
  }

  // Writes what is left, best first, and empties the heap.
  void write(Metric metric, int64_t* indices, float* distances) {
    for (int64_t left = count_; left > 0; --left) {
      const Found worst = heap_[0];
      sink(heap_[left - 1], left - 1);
      const bool found = worst.index != INT64_MAX;
      const double score = metric == Metric::l2 ? 0.0 - worst.score : worst.score;
      indices[left - 1] = found ? worst.index : 0;
      distances[left - 1] = found ? float(score) : __builtin_nanf("");
    }
  }

 private:
  // Puts `found` in the place of the root of a heap of `count`.
  void sink(const Found& found, int64_t count) {
    int64_t at = 0;
    for (int64_t child = 1; child < count; child = 2 * at + 1) {
      if (child + 1 < count && better(heap_[child], heap_[child + 1])) ++child;
      if (!better(found, heap_[child])) break;
      heap_[at] = heap_[child];
      at = child;
    }
    heap_[at] = found;
  }

  Found* heap_;
  int64_t count_;
};

// The parts of one worker's memory.
struct Scratch {
  GroupScreen screen;
  float* tile;   // (block_rows, padded(D))
  double* wide;  // (padded(D),) one row of x
  Found* heap;   // (k,)
  float* lower;  // (k,) for GroupScreen::mark
};

Scratch lay_out(const PackedCodebook& codes, int64_t block_rows, int64_t k, Parts& parts) {
  const GroupScreen screen(codes, block_rows, parts);
  float* tile = parts.take(block_rows * padded(codes.dim));
  double* wide = reinterpret_cast<double*>(parts.take(2 * padded(codes.dim)));
  Found* heap = reinterpret_cast<Found*>(parts.take(4 * k));
  return {screen, tile, wide, heap, parts.take(k)};
}

// Codes of equal value stand for each other in the packed codebook: `next` leads from one to the
// following one. The k best codes are among those equal to the k best of the distinct ones.
struct Codes {
  const PackedCodebook& packed;
  float least;          // packed.norm_of_least(k)
  const int32_t* next;  // (K,)

  void offer(double score, int64_t position, BestCodes& best) const {
    int64_t index = packed.ids[position];
    while (index >= 0 && best.offer({score, index})) index = next[index];
  }
};

void search_row(const Codes& codes, const float* x, int64_t r, const Scratch& scratch,
                BestCodes& best) {
  const PackedCodebook& packed = codes.packed;
  for (int64_t i = 0; i < packed.dim; i += 8) store(widen(x + i), scratch.wide + i);
  scratch.screen.for_each_candidate(r, [&](int64_t group) {
    const float* exact = packed.exact + group * packed.exact_lanes * packed.dim;
    const int64_t position = packed.first_position(group);
    for (int64_t first = 0; first < packed.exact_lanes; first += 8) {
      alignas(64) double scores[8];
      scores_of_eight(packed.metric, packed.dim, scratch.wide, exact + first * packed.dim, scores);
      for (int64_t lane = 0; lane < 8; ++lane)
        if (best.admits(scores[lane])) codes.offer(scores[lane], position + first + lane, best);
    }
  });
}

void search_block(const NearestCodes& args, const Codes& codes, int64_t first, int64_t count,
                  const Scratch& scratch) {
  const PackedCodebook& packed = codes.packed;
  const float* tile = as_tile(args.x, first, count, scratch.tile);
  scratch.screen.score(packed, tile, count, codes.least);
  for (int64_t r = 0; r < count; ++r) {
    const RowState state = scratch.screen.plans[r].state;
    BestCodes best(scratch.heap, args.k);
    if (state == RowState::search) {
      scratch.screen.mark(packed, r, args.k, scratch.lower);
      search_row(codes, tile + r * padded(packed.dim), r, scratch, best);
    } else if (state == RowState::zero) {
      const int64_t enough = args.k < packed.num_positions ? args.k : packed.num_positions;
      for (int64_t position = 0; position < enough; ++position) codes.offer(0.0, position, best);
    }
    best.write(args.metric, args.indices + (first + r) * args.k,
               args.distances + (first + r) * args.k);
  }
}

}  // namespace

void nearest_codes(const NearestCodes& args) {
  const int64_t dim = args.x.dim, num_rows = args.x.count;
  if (num_rows == 0) return;
  const Buffer<int32_t> next(args.num_codes);
  const Buffer<char> memory(PackedCodebook(args.num_codes, dim, args.metric, nullptr).bytes);
  PackedCodebook packed(args.num_codes, dim, args.metric, memory.data());
  packed.pack(args.codebook, false, args.threads, next.data());

  const int64_t block = screened_rows(packed, num_rows, args.threads);
  Parts worker_parts{nullptr, 0};
  lay_out(packed, block, args.k, worker_parts);
  const Buffer<float> scratch(args.threads * worker_parts.floats);
  const Codes codes{packed, packed.norm_of_least(args.k), next.data()};
  parallel_for((num_rows + block - 1) / block, args.threads, [&](int64_t b, int worker) {
    Parts parts{scratch.data() + worker * worker_parts.floats, 0};
    const int64_t first = b * block;
    const int64_t count = num_rows - first < block ? num_rows - first : block;
    search_block(args, codes, first, count, lay_out(packed, block, args.k, parts));
  });
}

}  // namespace vqk::VQK_LEVEL
