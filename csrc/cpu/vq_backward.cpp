#include "vqk/vq_backward.h"

#include "convert.h"
#include "double8.h"
#include "kernels.h"
#include "memory.h"
#include "parallel.h"
#include "rotation.h"
#include "row_norms.h"
#include "row_runs.h"
#include "row_tiles.h"
#include "sorted_sums.h"
#include "transpose.h"

namespace vqk::VQK_LEVEL {
namespace {

constexpr int64_t block_rows = 64;

// What the loss adds: pull * (u - q). Absent is not zero: 0 * NaN would reach x.
struct Pull {
  bool present;
  double weight;
};

// Writes the gradient in u to `out`; returns its product with u.
double gradient_in_u(const RowGradient& row, const Rotation& rotation, const Pull& pull,
                     int64_t width, double* out) {
  Double8 product{};
  for (int64_t i = 0; i < width; i += 8) {
    const Double8 q = widen(row.q + i);
    Double8 u = widen(row.x + i), value = widen(row.upstream + i);
    if (row.divisor != 1.0) u = u / splat(row.divisor);
    if (rotation.present) value = rotated(rotation, value, u, q);
    if (pull.present) value = value + splat(pull.weight) * (u - q);
    store(value, out + i);
    product = product + value * u;
  }
  return sum_lanes(product);
}

// One worker's tiles, (block_rows, padded(D)) each, and one row in float64.
struct Workspace {
  float *x, *q, *upstream, *grad;
  double* row;
};

int64_t workspace_floats(int64_t width) {
  return (4 * block_rows * width + 2 * width + 15) / 16 * 16;
}

Workspace lay_out(float* memory, int64_t width) {
  const int64_t tile = block_rows * width;
  return {memory, memory + tile, memory + 2 * tile, memory + 3 * tile,
          reinterpret_cast<double*>(memory + 4 * tile)};
}

void row_gradient(const VqBackward& args, const RowGradient& row, const Pull& pull, double norm,
                  int64_t width, double* wide, float* out) {
  if (args.metric == Metric::cosine && norm < smallest_norm) {
    for (int64_t i = 0; i < width; ++i) out[i] = 0.0f;
    return;
  }
  Rotation rotation{false, 1.0, 0.0, 0.0};
  if (args.estimator == Estimator::rotation && args.grad_quantized != nullptr)
    rotation = rotate(row, width);
  const double product = gradient_in_u(row, rotation, pull, width, wide);
  const bool project = args.metric == Metric::cosine;
  for (int64_t i = 0; i < width; ++i) {
    const double u = double(row.x[i]) / row.divisor;
    out[i] = float(project ? (wide[i] - u * product) / row.divisor : wide[i]);
  }
}

// The gradient in x of rows [first, first + count).
void block_gradient(const VqBackward& args, const Pull& pull, int64_t first, int64_t count,
                    const Workspace& w) {
  const int64_t dim = args.x.dim, width = padded(dim);
  const bool unit = args.metric == Metric::cosine;
  const float* x = as_tile(args.x, first, count, w.x);
  const float* q = as_tile(args.quantized, first, count, w.q);
  const float* upstream = w.upstream;
  if (args.grad_quantized != nullptr)
    upstream = as_tile(*args.grad_quantized, first, count, w.upstream);
  else
    for (int64_t i = 0; i < count * width; ++i) w.upstream[i] = 0.0f;
  float* in_place = tile_in_place(*args.grad_x, first);
  float* grad = in_place == nullptr ? w.grad : in_place;
  double norms[block_rows] = {};
  if (unit) tile_norms(x, count, dim, norms);

  for (int64_t r = 0; r < count; ++r) {
    const int64_t at = r * width;
    if (args.indices[first + r] < 0)
      for (int64_t i = 0; i < width; ++i) grad[at + i] = upstream[at + i];
    else
      row_gradient(args, {x + at, q + at, upstream + at, unit ? unit_divisor(norms[r]) : 1.0}, pull,
                   norms[r], width, w.row, grad + at);
  }
  if (in_place == nullptr) store_rows(*args.grad_x, first, count, grad);
}

// The straight-through gradient without a mask is one formula for every element, wherever its row
// is: out = upstream + weight * (x - q).
template <class Element>
void pull_elements(const Element* x, const float* q, const Element* upstream, const Pull& pull,
                   int64_t count, Element* out) {
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    alignas(32) float values[8] = {};
    if (upstream != nullptr) store8(load8(upstream + i), values);
    Double8 value = widen(values);
    if (pull.present) {
      store8(load8(x + i), values);
      const Double8 u = widen(values);
      store8(load8(q + i), values);
      value = value + splat(pull.weight) * (u - widen(values));
    }
    narrow(value, values);
    store8(load8(values), out + i);
  }
  for (; i < count; ++i) {
    double value = upstream == nullptr ? 0.0 : double(to_float(upstream[i]));
    if (pull.present) value += pull.weight * (double(to_float(x[i])) - double(q[i]));
    from_float(float(value), out + i);
  }
}

bool same_layout(const Rows& a, const Rows& b) {
  if (a.num_dims != b.num_dims || a.dim_stride != b.dim_stride) return false;
  for (int i = 0; i < a.num_dims; ++i)
    if (a.strides[i] != b.strides[i] || a.sizes[i] != b.sizes[i]) return false;
  return true;
}

// All tensors lie alike, and their elements in runs that are contiguous.
bool lies_in_runs(const VqBackward& args) {
  const Rows& x = args.x;
  return (x.dim_stride == 1 || x.strides[x.num_dims - 1] == 1) && same_layout(x, args.quantized) &&
         same_layout(x, *args.grad_x) &&
         (args.grad_quantized == nullptr || same_layout(x, *args.grad_quantized));
}

void pull_rows(const VqBackward& args, const Pull& pull, int64_t first, int64_t count) {
  const int64_t dim = args.x.dim, step = args.x.dim_stride;
  const auto* q = static_cast<const float*>(args.quantized.data);
  with_element_type(args.x.dtype, [&](auto* type) {
    using Pointer = decltype(type);
    const auto* x = static_cast<Pointer>(args.x.data);
    const auto* upstream =
        static_cast<Pointer>(args.grad_quantized == nullptr ? nullptr : args.grad_quantized->data);
    auto* out = static_cast<Pointer>(args.grad_x->data);
    const auto pull_run = [&](int64_t at, int64_t length) {
      pull_elements(x + at, q + at, upstream == nullptr ? nullptr : upstream + at, pull, length,
                    out + at);
    };
    for_each_run(args.x, first, count,
                 [&](int64_t, int64_t length, int64_t offset, int64_t stride) {
                   if (step == 1 && stride == dim)
                     pull_run(offset, length * dim);
                   else if (step == 1)
                     for (int64_t r = 0; r < length; ++r) pull_run(offset + r * stride, dim);
                   else
                     for (int64_t i = 0; i < dim; ++i) pull_run(offset + i * step, length);
                 });
  });
}

void gradient_in_x(const VqBackward& args, const Pull& pull, bool masked) {
  const int64_t num_rows = args.x.count, width = padded(args.x.dim);
  if (args.metric == Metric::l2 && args.estimator == Estimator::straight_through && !masked &&
      lies_in_runs(args)) {
    constexpr int64_t block_elements = 1 << 15;
    const int64_t rows = block_elements / args.x.dim;
    const int64_t block = rows < block_rows ? block_rows : rows;
    return parallel_for((num_rows + block - 1) / block, args.threads, [&](int64_t b, int) {
      const int64_t first = b * block;
      pull_rows(args, pull, first, num_rows - first < block ? num_rows - first : block);
    });
  }
  const int64_t floats = workspace_floats(width);
  const Buffer<float> memory(args.threads * floats);
  parallel_for((num_rows + block_rows - 1) / block_rows, args.threads, [&](int64_t b, int worker) {
    const int64_t first = b * block_rows;
    const int64_t count = num_rows - first < block_rows ? num_rows - first : block_rows;
    block_gradient(args, pull, first, count, lay_out(memory.data() + worker * floats, width));
  });
}

void gradient_in_codebook(const VqBackward& args, double scale) {
  const int64_t num_rows = args.x.count;
  const Buffer<int32_t> codes(num_rows);
  for (int64_t n = 0; n < num_rows; ++n) {
    const int64_t index = args.indices[n];
    codes[n] = index >= 0 && index < args.num_codes ? int32_t(index) : -1;
  }
  const bool unit = args.metric == Metric::cosine;
  const Buffer<double> divisors(unit ? num_rows : 0);
  if (unit) {
    row_norms(args.x, divisors.data(), args.threads);
    for (int64_t n = 0; n < num_rows; ++n) divisors[n] = unit_divisor(divisors[n]);
  }
  sorted_sums({codes.data(), args.num_codes, &args.x, unit ? divisors.data() : nullptr,
               &args.quantized, scale, nullptr, args.grad_codebook, args.threads});
}

}  // namespace

void vq_backward(const VqBackward& args) {
  int64_t valid = 0;
  for (int64_t n = 0; n < args.x.count; ++n) valid += args.indices[n] >= 0;
  double scale = 0.0;
  if (args.grad_loss != nullptr && valid > 0)
    scale = 2.0 * double(*args.grad_loss) / (double(valid) * double(args.x.dim));
  if (args.grad_x != nullptr)
    gradient_in_x(args, {args.grad_loss != nullptr, scale * args.commitment_weight},
                  valid < args.x.count);
  if (args.grad_codebook != nullptr) gradient_in_codebook(args, scale * args.codebook_weight);
}

}  // namespace vqk::VQK_LEVEL
