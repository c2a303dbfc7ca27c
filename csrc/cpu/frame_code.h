#pragma once

#include <cstring>

#include "bound.h"
#include "double8.h"
#include "row_tiles.h"

namespace vqk::VQK_LEVEL {

// Writes b of one code to `row`, (padded(D),) aligned to 32 bytes, and returns |b|; `half_square`
// is |B|^2/2. With a `centre`, (padded(D),) in the frame and aligned as row is, B - centre stands
// for B.
VQK_INLINE double frame_code(const Frame& frame, const float* centre, const float* code, float* row,
                             float* half_square) {
  const int64_t width = padded(frame.dim);
  alignas(32) float tail[8] = {};
  const Double8 scale = splat(frame.scale);
  Double8 square{}, rounded_square{};
  for (int64_t i = 0; i < width; i += 8) {
    const int64_t left = frame.dim - i;
    if (left < 8) std::memcpy(tail, code + i, size_t(left) * sizeof(float));
    Double8 value =
        ((left < 8 ? widen(tail) : widen_unaligned(code + i)) - load(frame.shift + i)) * scale;
    if (centre != nullptr) value = value - widen(centre + i);
    narrow(value, row + i);
    const Double8 rounded = widen(row + i);
    square = square + value * value;
    rounded_square = rounded_square + rounded * rounded;
  }
  *half_square = float(0.5 * sum_lanes(square));
  return __builtin_sqrt(sum_lanes(rounded_square));
}

VQK_INLINE double frame_code(const Frame& frame, const float* code, float* row,
                             float* half_square) {
  return frame_code(frame, nullptr, code, row, half_square);
}

}  // namespace vqk::VQK_LEVEL
