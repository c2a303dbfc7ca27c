#include "vqk/fsq.h"

#include "channel_runs.h"
#include "kernels.h"
#include "memory.h"
#include "parallel.h"
#include "scalar_bound.h"

namespace vqk::VQK_LEVEL {
namespace {

constexpr int64_t block_rows = 512;
constexpr int32_t few_levels = 32;
constexpr int64_t counting_memory = 1 << 20;  // entries of all workers' counts together

// One worker's block, channel by channel. Values past `count` belong to nobody.
struct Block {
  alignas(64) float x[block_rows];
  alignas(64) float bounded[block_rows];
  alignas(64) float code[block_rows];
  alignas(64) float error[block_rows];  // sum over the channels so far
  alignas(64) int64_t index[block_rows];
  alignas(64) int32_t digit[block_rows];
  alignas(64) int32_t left[block_rows];  // not zero in rows that are not finite
};

void bound_values(const ScalarLevels& scalars, int64_t i, Block& b) {
  const Vec shift = splat(scalars.shift[i]), gain = splat(scalars.gain[i]);
  const Vec bias = splat(scalars.bias[i]);
  const bool clamp = scalars.bound == Bound::clamp;
  for (int64_t r = 0; r < block_rows; r += lanes) {
    const Vec y = load(b.x + r) + shift;
    store(b.bounded + r, multiply_add(gain, clamp ? clamped(y) : tanh_of(y), bias));
  }
}

// Few limits are counted: that is cheaper than to read two of them at every element's own place.
void count_limits(const float* limits, int64_t top, Block& b) {
  for (int64_t r = 0; r < block_rows; r += lanes) {
    const Vec x = load(b.x + r);
    IntLanes digit{};
    for (int64_t j = 1; j <= top; ++j) digit -= (IntLanes)(x >= splat(limits[j]));
    *reinterpret_cast<IntLanes*>(b.digit + r) = digit;
  }
}

// Of many, the level nearest to bounded(x) as float32 has it is off by one at most, near a limit.
void correct_levels(const ScalarLevels& scalars, int64_t i, const float* limits, Block& b) {
  const float scale = scalars.half[i] / float(scalars.stride), middle = scale + 0.5f;
  const float highest = float(scalars.levels[i] - 1);
  for (int64_t r = 0; r < block_rows; ++r) {
    float place = b.bounded[r] * scale + middle;
    place = place > 0.0f ? place : 0.0f;  // NaN too
    place = place < highest ? place : highest;
    const int32_t near = int32_t(place);
    const int32_t up = b.x[r] >= limits[near + 1], down = b.x[r] < limits[near];
    b.digit[r] = near + up - down;
  }
}

void choose_levels(const ScalarLevels& scalars, int64_t i, Block& b) {
  const float* limits = scalars.limits + scalars.start[i];
  if (scalars.levels[i] <= few_levels)
    count_limits(limits, scalars.levels[i] - 1, b);
  else
    correct_levels(scalars, i, limits, b);
  for (int64_t r = 0; r < block_rows; ++r) {
    const float code = code_of(scalars, i, b.digit[r]);
    const float difference = b.bounded[r] - code;
    b.code[r] = code;
    b.error[r] += difference * difference;
  }
}

// Digits below 2^32 times a basis below 2^32 is one instruction; what is larger is not.
void add_digits(const ScalarLevels& scalars, int64_t i, Block& b) {
  const int64_t basis = scalars.basis[i];
  if (basis >> 32 == 0)
    for (int64_t r = 0; r < block_rows; ++r)
      b.index[r] += int64_t(uint64_t(uint32_t(b.digit[r])) * uint32_t(basis));
  else
    for (int64_t r = 0; r < block_rows; ++r) b.index[r] += int64_t(b.digit[r]) * basis;
  for (int64_t r = 0; r < block_rows; ++r) b.left[r] |= b.x[r] - b.x[r] != 0.0f;
}

// What one block adds to the mean.
struct BlockError {
  double sum;
  int64_t valid;
  int64_t left;  // valid rows that are not finite
};

BlockError write_plain_rows(const Fsq& args, int64_t first, int64_t count, const Block& b) {
  __builtin_memcpy(args.indices + first, b.index, size_t(count) * sizeof *b.index);
  double sums[8] = {};
  for (int64_t r = 0; r < count; ++r) sums[r % 8] += double(b.error[r]);
  double sum = 0.0;
  for (const double part : sums) sum += part;
  return {sum, count, 0};
}

bool all_plain(const uint8_t* mask, int64_t count, const Block& b) {
  int32_t left = 0;
  for (int64_t r = 0; r < count; ++r) left |= b.left[r];
  if (mask != nullptr)
    for (int64_t r = 0; r < count; ++r) left |= mask[r] == 0;
  return left == 0;
}

// Indices and error of the block; rows that are masked or not finite are put right.
BlockError write_rows(const Fsq& args, int64_t first, int64_t count, Block& b) {
  const uint8_t* mask = args.mask == nullptr ? nullptr : args.mask + first;
  if (all_plain(mask, count, b)) return write_plain_rows(args, first, count, b);
  const auto masked = [&](int64_t r) { return mask != nullptr && mask[r] == 0; };
  BlockError error{0.0, 0, 0};
  for (int64_t r = 0; r < count; ++r) {
    const bool valid = !masked(r), left = valid && b.left[r] != 0;
    args.indices[first + r] = !valid ? -1 : left ? 0 : b.index[r];
    error.sum += !valid ? 0.0 : left ? double(__builtin_nanf("")) : double(b.error[r]);
    error.valid += valid;
    error.left += left;
  }
  for (int64_t i = 0; i < args.x.dim; ++i) {
    load_channel(args.x, first, count, i, b.x);
    load_channel(args.quantized, first, count, i, b.code);
    for (int64_t r = 0; r < count; ++r)
      b.code[r] = masked(r) ? b.x[r] : b.left[r] != 0 ? __builtin_nanf("") : b.code[r];
    store_channel(b.code, first, count, i, args.quantized);
  }
  return error;
}

BlockError process_block(const Fsq& args, int64_t first, int64_t count, Block& b) {
  for (int64_t r = 0; r < block_rows; ++r) {
    b.x[r] = 0.0f;
    b.error[r] = 0.0f;
    b.index[r] = 0;
    b.left[r] = 0;
  }
  for (int64_t i = 0; i < args.x.dim; ++i) {
    load_channel(args.x, first, count, i, b.x);
    bound_values(args.scalars, i, b);
    choose_levels(args.scalars, i, b);
    add_digits(args.scalars, i, b);
    store_channel(b.code, first, count, i, args.quantized);
  }
  return write_rows(args, first, count, b);
}

void count_codes(const Fsq& args) {
  const int64_t num_codes = args.num_codes, num_rows = args.x.count;
  const int64_t most = counting_memory / num_codes;
  const int64_t parts = args.threads < most ? args.threads : most < 1 ? 1 : most;
  const Buffer<int64_t> counts(parts * num_codes);
  const int64_t share = (num_rows + parts - 1) / parts;
  parallel_for(parts, args.threads, [&](int64_t part, int) {
    int64_t* own = counts.data() + part * num_codes;
    for (int64_t k = 0; k < num_codes; ++k) own[k] = 0;
    const int64_t end = (part + 1) * share < num_rows ? (part + 1) * share : num_rows;
    for (int64_t n = part * share; n < end; ++n)
      if (args.indices[n] >= 0) ++own[args.indices[n]];
  });
  for (int64_t k = 0; k < num_codes; ++k) {
    args.counts[k] = 0;
    for (int64_t part = 0; part < parts; ++part) args.counts[k] += counts[part * num_codes + k];
  }
}

}  // namespace

void fsq(const Fsq& args) {
  const int64_t num_rows = args.x.count, blocks = (num_rows + block_rows - 1) / block_rows;
  const Buffer<BlockError> errors(blocks);
  const Buffer<Block> memory(args.threads);
  parallel_for(blocks, args.threads, [&](int64_t b, int worker) {
    const int64_t first = b * block_rows;
    const int64_t count = num_rows - first < block_rows ? num_rows - first : block_rows;
    errors[b] = process_block(args, first, count, memory[worker]);
  });
  BlockError total{0.0, 0, 0};
  for (int64_t b = 0; b < blocks; ++b) {
    total.sum += errors[b].sum;
    total.valid += errors[b].valid;
    total.left += errors[b].left;
  }
  *args.mse =
      total.valid == 0 ? 0.0f : float(total.sum / (double(total.valid) * double(args.x.dim)));
  if (args.counts == nullptr) return;
  count_codes(args);
  args.counts[0] -= total.left;  // their index is 0
}

}  // namespace vqk::VQK_LEVEL
