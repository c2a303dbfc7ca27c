#include "vqk/residual_backward.h"

#include "kernels.h"
#include "memory.h"
#include "parallel.h"
#include "rotation.h"
#include "row_tiles.h"

namespace vqk::VQK_LEVEL {
namespace {

constexpr int64_t block_rows = 64;

// One worker's tiles, (block_rows, padded(D)) each.
struct Workspace {
  float *x, *q, *upstream, *remainder, *grad;
};

Workspace lay_out(float* memory, int64_t tile) {
  return {memory, memory + tile, memory + 2 * tile, memory + 3 * tile, memory + 4 * tile};
}

void load_or_zero(const Rows* rows, int64_t first, int64_t count, int64_t width, float* tile) {
  if (rows != nullptr) return load_rows(*rows, first, count, tile);
  for (int64_t i = 0; i < count * width; ++i) tile[i] = 0.0f;
}

// The gradient in x of rows [first, first + count). `pull` multiplies the remainder.
void block_gradient(const ResidualBackward& args, double pull, int64_t first, int64_t count,
                    const Workspace& w) {
  const int64_t width = padded(args.dim);
  const bool rotate_rows = args.estimator == Estimator::rotation && args.grad_quantized != nullptr;
  load_or_zero(args.grad_quantized, first, count, width, w.upstream);
  load_rows(*args.remainder, first, count, w.remainder);
  if (rotate_rows) load_rows(*args.x, first, count, w.x);
  if (rotate_rows) load_rows(*args.quantized, first, count, w.q);

  for (int64_t r = 0; r < count; ++r) {
    const RowGradient row{w.x + r * width, w.q + r * width, w.upstream + r * width, 1.0};
    const bool masked = args.mask != nullptr && args.mask[first + r] == 0;
    Rotation rotation{false, 1.0, 0.0, 0.0};
    if (rotate_rows && !masked) rotation = rotate(row, width);
    // Absent is not zero: 0 * NaN would reach x.
    const bool pulled = args.grad_loss != nullptr && !masked;
    for (int64_t i = 0; i < width; i += 8) {
      Double8 value = widen(row.upstream + i);
      if (rotation.present) value = rotated(rotation, value, widen(row.x + i), widen(row.q + i));
      if (pulled) value = value + splat(pull) * widen(w.remainder + r * width + i);
      narrow(value, w.grad + r * width + i);
    }
  }
  store_rows(*args.grad_x, first, count, w.grad);
}

void gradient_in_x(const ResidualBackward& args, double pull) {
  const int64_t tile = block_rows * padded(args.dim);
  const Buffer<float> memory(args.threads * 5 * tile);
  parallel_for((args.num_rows + block_rows - 1) / block_rows, args.threads,
               [&](int64_t b, int worker) {
                 const int64_t first = b * block_rows, left = args.num_rows - first;
                 block_gradient(args, pull, first, left < block_rows ? left : block_rows,
                                lay_out(memory.data() + worker * 5 * tile, tile));
               });
}

// The derivative of (sg(r_l) - c_l)^2, summed over the rows of a code, is -2 times the sum of what
// remained of them.
void gradient_in_codebooks(const ResidualBackward& args, double scale) {
  const int64_t size = args.num_codes * args.dim, block = 65536;
  const int64_t total = args.shared ? size : args.levels * size;
  parallel_for((total + block - 1) / block, args.threads, [&](int64_t b, int) {
    const int64_t end = total - b * block < block ? total : (b + 1) * block;
    for (int64_t i = b * block; i < end; ++i) {
      double sum = 0.0;
      for (int64_t at = i; at < args.levels * size; at += total)
        sum += double(args.code_remainders[at]);
      args.grad_codebooks[i] = args.grad_loss == nullptr ? 0.0f : float(-scale * sum);
    }
  });
}

}  // namespace

void residual_backward(const ResidualBackward& args) {
  int64_t valid = args.num_rows;
  if (args.mask != nullptr)
    for (int64_t n = 0; n < args.num_rows; ++n) valid -= args.mask[n] == 0;
  double scale = 0.0;
  if (args.grad_loss != nullptr && valid > 0)
    scale = 2.0 * double(*args.grad_loss) / (double(valid) * double(args.dim));
  if (args.grad_x != nullptr) gradient_in_x(args, scale * args.commitment_weight);
  if (args.grad_codebooks != nullptr) gradient_in_codebooks(args, scale * args.codebook_weight);
}

}  // namespace vqk::VQK_LEVEL
