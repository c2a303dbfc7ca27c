#include "vqk/residual.h"

#include "double8.h"
#include "kernels.h"
#include "masked_rows.h"
#include "mean_error.h"
#include "memory.h"
#include "parallel.h"
#include "residual_sums.h"
#include "row_tiles.h"
#include "search.h"
#include "streamed_search.h"

namespace vqk::VQK_LEVEL {
namespace {

// Blocks of the search that a level takes before the next level: its codes come from the
// second-level cache for all of them but the first.
constexpr int64_t most_search_blocks = 4;

// Takes a sample's rows, (count, padded(D)), to the next level.
void subtract_codes(const Search& search, const float* codes, int64_t dim,
                    const RowSample& sample) {
  const int64_t width = padded(dim), block = search.block_rows();
  const Buffer<float> scratch(search.scratch_floats());
  const Buffer<int64_t> indices(sample.count);
  for (int64_t first = 0; first < sample.count; first += block)
    search.assign(sample.tile.data() + first * width,
                  sample.count - first < block ? sample.count - first : block, scratch.data(),
                  indices.data() + first, nullptr, nullptr);
  for (int64_t r = 0; r < sample.count; ++r)
    for (int64_t i = 0; i < dim; ++i) sample.tile[r * width + i] -= codes[indices[r] * dim + i];
}

// The search of every level; one alone when they share their codes.
class Searches {
 public:
  explicit Searches(const Residual& args) : Searches(args.shared ? 1 : args.levels) {
    const int64_t wanted = args.shared ? 1 : args.levels, dim = args.x.dim;
    const RowSample sample(args.x, args.threads);
    const bool chosen_by_sample =
        args.prepared != nullptr || args.x.count > StreamedSearch::most_rows;
    for (; count_ < wanted; ++count_) {
      const float* codes = args.codebooks + count_ * args.num_codes * dim;
      const Search* search =
          new Search(codes, args.num_codes, dim, Metric::l2,
                     args.prepared != nullptr ? args.prepared[count_] : Prepared{nullptr, 0},
                     args.x.count, sample, args.threads);
      searches_[count_] = search;
      if (chosen_by_sample && count_ + 1 < wanted) subtract_codes(*search, codes, dim, sample);
      const int64_t rows = search->block_rows(), floats = search->scratch_floats();
      if (rows > block_rows_) block_rows_ = rows;
      if (floats > scratch_floats_) scratch_floats_ = floats;
    }
    const int64_t share = args.x.count / (4 * args.threads * block_rows_);
    block_rows_ *= share < 1 ? 1 : share < most_search_blocks ? share : most_search_blocks;
  }
  ~Searches() {
    for (int64_t i = 0; i < count_; ++i) delete searches_[i];
  }
  Searches(const Searches&) = delete;
  Searches& operator=(const Searches&) = delete;

  const Search& at(int64_t level) const { return *searches_[count_ == 1 ? 0 : level]; }
  // Rows that go through all levels before the next ones. All of them where a search streams its
  // codes: that one shares the work out itself, and must not be called by workers.
  int64_t block_rows() const { return block_rows_; }
  // Enough for every level.
  int64_t scratch_floats() const { return scratch_floats_; }

 private:
  // Delegated to, so that the destructor runs when memory is short in the middle.
  explicit Searches(int64_t most)
      : count_(0), searches_(most), block_rows_(0), scratch_floats_(0) {}

  int64_t count_;
  Buffer<const Search*> searches_;
  int64_t block_rows_, scratch_floats_;
};

// One worker's memory.
struct Workspace {
  float* scratch;      // for Search::assign
  float* tile;         // (block, padded(D)) residuals of the rows of the level, packed to the front
  float* quantized;    // (block, padded(D))
  float* remainder;    // (block, padded(D))
  float* code;         // (padded(D),) of one row
  int64_t* indices;    // (block,) of the packed rows
  int64_t* positions;  // (block,) where in the block each packed row stands
  uint8_t* finite;     // (block,)
};

int64_t workspace_floats(const Searches& searches, int64_t dim) {
  const int64_t block = searches.block_rows();
  return searches.scratch_floats() + ((3 * block + 1) * padded(dim) + 5 * block + 15) / 16 * 16;
}

Workspace lay_out(const Searches& searches, int64_t dim, float* memory) {
  const int64_t block = searches.block_rows(), tile = block * padded(dim);
  Workspace w;
  w.scratch = memory;
  w.tile = memory + searches.scratch_floats();
  w.quantized = w.tile + tile;
  w.remainder = w.quantized + tile;
  w.code = w.remainder + tile;
  w.indices = reinterpret_cast<int64_t*>(w.code + padded(dim));
  w.positions = w.indices + block;
  w.finite = reinterpret_cast<uint8_t*>(w.positions + block);
  return w;
}

void copy(const float* from, float* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = from[i];
}

// Codes are drawn at random from more than the first-level cache holds.
void prefetch(const float* from, int64_t count) {
  for (int64_t i = 0; i < count; i += 16) __builtin_prefetch(from + i);
}

void fill(float value, float* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = value;
}

// Takes a row from one level to the next and returns |r - c|^2. Everything is (padded(D),). Eight
// lanes, combined in a fixed order.
double subtract_code(const float* code, int64_t width, float* __restrict residual,
                     float* __restrict quantized, float* __restrict remainder) {
  Double8 sum{};
  for (int64_t i = 0; i < width; i += 8) {
    const Double8 difference = widen(residual + i) - widen(code + i);
    sum = sum + difference * difference;
  }
  for (int64_t i = 0; i < width; ++i) {
    residual[i] -= code[i];
    quantized[i] += code[i];
    remainder[i] += residual[i];
  }
  return sum_lanes(sum);
}

void process_level(const Residual& args, const Search& search, int64_t level, int64_t first,
                   int64_t taking, const LevelRows& rows, const Workspace& w) {
  const int64_t dim = args.x.dim, width = padded(dim);
  const float* codes = args.codebooks + (args.shared ? 0 : level * args.num_codes * dim);
  const int64_t block = search.block_rows();
  for (int64_t r = 0; r < taking; r += block)
    search.assign(w.tile + r * width, taking - r < block ? taking - r : block, w.scratch,
                  w.indices + r, nullptr, w.finite + r);
  for (int64_t r = 0; r < taking; ++r) {
    if (r + 2 < taking) prefetch(codes + w.indices[r + 2] * dim, dim);
    const int64_t row = first + w.positions[r], at = w.positions[r] * width;
    const bool finite = w.finite[r] != 0;
    args.indices[row * args.levels + level] = w.indices[r];
    if (finite) rows.levels[row] = int32_t(level + 1);
    if (finite)
      copy(codes + w.indices[r] * dim, w.code, dim);
    else
      fill(__builtin_nanf(""), w.code, dim);
    rows.errors[level * rows.errors_stride + row] =
        subtract_code(w.code, width, w.tile + r * width, w.quantized + at, w.remainder + at);
  }
}

// Leaves a row out of the levels from `level` on.
void leave_out(const Residual& args, int64_t row, int64_t level, float* remainder,
               const LevelRows& rows) {
  if (level == 0) fill(0.0f, remainder, padded(args.x.dim));
  for (; level < args.levels; ++level) {
    args.indices[row * args.levels + level] = -1;
    rows.errors[level * rows.errors_stride + row] = 0.0;
  }
}

// Leaves out the packed rows that end before this level and packs the others again. Returns how
// many these are.
int64_t drop_ended(const Residual& args, int64_t level, int64_t first, int64_t count,
                   const LevelRows& rows, const Workspace& w) {
  const int64_t width = padded(args.x.dim);
  int64_t taking = 0;
  for (int64_t r = 0; r < count; ++r) {
    const int64_t position = w.positions[r], row = first + position;
    if (args.kept[row] > level) {
      if (taking != r) copy(w.tile + r * width, w.tile + taking * width, width);
      w.positions[taking++] = position;
    } else {
      leave_out(args, row, level, w.remainder + position * width, rows);
      if (level == 0) fill(0.0f, w.quantized + position * width, width);
    }
  }
  return taking;
}

void process_block(const Residual& args, const Searches& searches, int64_t first, int64_t count,
                   const LevelRows& rows, const Workspace& w) {
  const int64_t dim = args.x.dim, width = padded(dim);
  load_rows(args.x, first, count, w.tile);
  if (rows.residuals != nullptr) copy(w.tile, rows.residuals + first * width, count * width);
  fill(-0.0f, w.quantized, count * width);  // -0 + c has the bits of c
  fill(-0.0f, w.remainder, count * width);
  fill(0.0f, w.code + dim, width - dim);
  for (int64_t r = 0; r < count; ++r) rows.levels[first + r] = 0;
  int64_t taking = count;
  if (args.mask != nullptr) {
    taking = separate_masked(args.mask + first, count, width, w.tile, w.quantized, w.positions);
    for (int64_t r = 0; r < count; ++r)
      if (args.mask[first + r] == 0) leave_out(args, first + r, 0, w.remainder + r * width, rows);
  } else {
    for (int64_t r = 0; r < count; ++r) w.positions[r] = r;
  }
  for (int64_t level = 0; level < args.levels; ++level) {
    if (args.kept != nullptr) taking = drop_ended(args, level, first, taking, rows, w);
    process_level(args, searches.at(level), level, first, taking, rows, w);
  }
  store_rows(args.quantized, first, count, w.quantized);
  if (args.remainder != nullptr) store_rows(*args.remainder, first, count, w.remainder);
}

}  // namespace

void residual(const Residual& args) {
  const int64_t dim = args.x.dim, num_rows = args.x.count;
  const bool sum = args.sums != nullptr || args.code_remainders != nullptr;
  const Buffer<float> residuals(sum ? num_rows * padded(dim) : 0);
  const Buffer<int32_t> levels(num_rows);
  const int64_t stride = (num_rows + 7) / 8 * 8;
  const Buffer<double> errors(args.levels * stride);
  const LevelRows rows{levels.data(), errors.data(), stride, sum ? residuals.data() : nullptr};
  if (num_rows > 0) {
    const Searches searches(args);
    const int64_t block = searches.block_rows(), floats = workspace_floats(searches, dim);
    const Buffer<float> memory(args.threads * floats);
    parallel_for((num_rows + block - 1) / block, args.threads, [&](int64_t b, int worker) {
      const int64_t first = b * block;
      const int64_t count = num_rows - first < block ? num_rows - first : block;
      process_block(args, searches, first, count, rows,
                    lay_out(searches, dim, memory.data() + worker * floats));
    });
  }
  for (int64_t level = 0; level < args.levels; ++level)
    args.mse[level] = mean_error(errors.data() + level * stride, args.mask, num_rows, dim);
  residual_sums(args, rows);
}

}  // namespace vqk::VQK_LEVEL
