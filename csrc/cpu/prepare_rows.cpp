#include "prepare_rows.h"

#include "double8.h"
#include "row_tiles.h"

namespace vqk::VQK_LEVEL {
namespace {

// Writes z of one row to `row` and returns |z|^2 in float64: NaN or infinite if x is not finite.
double shift_and_scale(const PackedCodebook& codes, const float* x, float* row) {
  const int64_t width = padded(codes.dim);
  const Double8 scale = splat(codes.scale);
  Double8 square{};
  for (int64_t i = 0; i < width; i += 8) {
    const Double8 value = (widen(x + i) - load(codes.shift + i)) * scale;
    square = square + value * value;
    narrow(value, row + i);
  }
  return sum_lanes(square);
}

// The same for cosine, where each row has a scale of its own: its direction decides.
double scale_to_unit(int64_t dim, const float* x, float* row) {
  const int64_t width = padded(dim);
  Double8 square{};
  for (int64_t i = 0; i < width; i += 8) {
    const Double8 value = widen(x + i);
    square = square + value * value;
  }
  const double norm = __builtin_sqrt(sum_lanes(square));
  if (!(norm > 0.0) || !(norm < __builtin_inf())) return norm;
  const double scale = __builtin_ldexp(1.0, -__builtin_ilogb(norm));
  for (int64_t i = 0; i < width; i += 8) narrow(widen(x + i) * splat(scale), row + i);
  return norm * scale * (norm * scale);
}

// Writes one row of z, zero where the screen will not be used, and returns what is left to do.
RowPlan prepare_row(const PackedCodebook& codes, const float* x, float* row) {
  const double square = codes.metric == Metric::l2 ? shift_and_scale(codes, x, row)
                                                   : scale_to_unit(codes.dim, x, row);
  RowPlan plan{row_bound(__builtin_sqrt(square), codes.shift_norm, codes.dim, codes.metric),
               RowState::search};
  if (!(square < __builtin_inf()))
    plan.state = RowState::nonfinite;
  else if (codes.metric == Metric::cosine && square == 0.0)
    plan.state = RowState::zero;
  if (plan.state != RowState::search || !(plan.bound.offset < __builtin_inff()))
    for (int64_t i = 0; i < codes.dim; ++i) row[i] = 0.0f;
  return plan;
}

}  // namespace

void prepare_rows(const PackedCodebook& codes, const float* x, int64_t count, float* rows, float* z,
                  RowPlan* plans) {
  const int64_t dim = codes.dim, width = padded(dim);
  for (int64_t first = 0; first < count; first += tile_rows) {
    // A short last tile repeats its last row.
    for (int64_t r = 0; r < tile_rows; ++r) {
      const int64_t row = first + r < count ? first + r : count - 1;
      plans[row] = prepare_row(codes, x + row * width, rows + r * width);
    }
    float* tile = z + first * dim;
    for (int64_t i = 0; i < dim; ++i)
#pragma GCC unroll 16
      for (int r = 0; r < tile_rows; ++r) tile[i * tile_rows + r] = rows[r * width + i];
  }
}

}  // namespace vqk::VQK_LEVEL
