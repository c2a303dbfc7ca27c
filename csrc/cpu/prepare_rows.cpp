#include "prepare_rows.h"

#include "double8.h"
#include "row_tiles.h"
#include "screen.h"

namespace vqk::VQK_LEVEL {
namespace {

// Divides the tiles of both screens.
constexpr int interleaved_rows = tile_rows % 4 == 0 ? 4 : 2;

// Writes z of one row to `row` and returns |z|^2 in float64: NaN or infinite if x is not finite.
double shift_and_scale(const Frame& frame, const float* x, float* row) {
  const int64_t width = padded(frame.dim);
  const Double8 scale = splat(frame.scale);
  Double8 square{};
  for (int64_t i = 0; i < width; i += 8) {
    const Double8 value = (widen(x + i) - load(frame.shift + i)) * scale;
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
RowPlan prepare_row(const Frame& frame, const float* x, float* row) {
  const double square = frame.metric == Metric::l2 ? shift_and_scale(frame, x, row)
                                                   : scale_to_unit(frame.dim, x, row);
  const double norm = __builtin_sqrt(square);
  RowPlan plan{row_bound(norm, frame.shift_norm, frame.dim, frame.metric), RowState::search,
               float(bound_slack * norm + 0x1p-100)};
  if (!(square < __builtin_inf()))
    plan.state = RowState::nonfinite;
  else if (frame.metric == Metric::cosine && square == 0.0)
    plan.state = RowState::zero;
  if (plan.state != RowState::search || !(plan.bound.offset < __builtin_inff()))
    for (int64_t i = 0; i < frame.dim; ++i) row[i] = 0.0f;
  if (!(plan.bound.offset < __builtin_inff())) plan.norm = __builtin_inff();
  if (plan.state != RowState::search) plan.norm = 0.0f;
  return plan;
}

}  // namespace

void prepare_rows(const Frame& frame, const float* x, int64_t count, int64_t tile, float* rows,
                  float* z, RowPlan* plans) {
  const int64_t dim = frame.dim, width = padded(dim);
  for (int64_t first = 0; first < count; first += tile) {
    // A short last tile repeats its last row.
    for (int64_t r = 0; r < tile; ++r) {
      const int64_t row = first + r < count ? first + r : count - 1;
      plans[row] = prepare_row(frame, x + row * width, rows + r * width);
    }
    interleave_rows(rows, dim, tile, z + first * dim);
  }
}

void interleave_rows(const float* rows, int64_t dim, int64_t tile, float* z) {
  const int64_t width = padded(dim);
  for (int64_t r = 0; r < tile; r += interleaved_rows)
    for (int64_t i = 0; i < dim; ++i)
#pragma GCC unroll 16
      for (int j = 0; j < interleaved_rows; ++j) z[i * tile + r + j] = rows[(r + j) * width + i];
}

}  // namespace vqk::VQK_LEVEL
