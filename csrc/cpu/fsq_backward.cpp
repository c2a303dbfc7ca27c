#include "channel_runs.h"
#include "kernels.h"
#include "memory.h"
#include "parallel.h"
#include "scalar_bound.h"
#include "vqk/fsq.h"

namespace vqk::VQK_LEVEL {
namespace {

constexpr int64_t block_rows = 512;

struct Block {
  alignas(64) float x[block_rows];
  alignas(64) float grad[block_rows];
  alignas(64) float out[block_rows];
};

void multiply_by_slope(const ScalarLevels& scalars, int64_t i, Block& b) {
  const float shift = scalars.shift[i], gain = scalars.gain[i];
  if (scalars.bound == Bound::clamp)
    for (int64_t r = 0; r < block_rows; ++r) {
      const float size = __builtin_fabsf(b.x[r] + shift);
      b.out[r] = size <= 1.0f ? gain * b.grad[r] : 0.0f * b.grad[r];
    }
  else
    for (int64_t r = 0; r < block_rows; r += lanes)
      store(b.out + r, splat(gain) * tanh_slope(load(b.x + r) + splat(shift)) * load(b.grad + r));
}

}  // namespace

void fsq_backward(const FsqBackward& args) {
  const int64_t num_rows = args.x.count;
  const Buffer<Block> memory(args.threads);
  for (int w = 0; w < args.threads; ++w)
    for (int64_t r = 0; r < block_rows; ++r) memory[w].x[r] = memory[w].grad[r] = 0.0f;
  parallel_for((num_rows + block_rows - 1) / block_rows, args.threads, [&](int64_t n, int worker) {
    Block& b = memory[worker];
    const int64_t first = n * block_rows;
    const int64_t count = num_rows - first < block_rows ? num_rows - first : block_rows;
    for (int64_t i = 0; i < args.x.dim; ++i) {
      load_channel(args.x, first, count, i, b.x);
      load_channel(args.grad_quantized, first, count, i, b.grad);
      multiply_by_slope(args.scalars, i, b);
      if (args.mask != nullptr)
        for (int64_t r = 0; r < count; ++r)
          if (args.mask[first + r] == 0) b.out[r] = b.grad[r];
      store_channel(b.out, first, count, i, args.grad_x);
    }
  });
}

}  // namespace vqk::VQK_LEVEL
