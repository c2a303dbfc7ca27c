#pragma once

#include "exponential.h"
#include "vqk/fsq.h"

namespace vqk::VQK_LEVEL {

VQK_INLINE float code_of(const ScalarLevels& scalars, int64_t i, int32_t digit) {
  return (float(scalars.stride) * float(digit) - scalars.half[i]) / scalars.half[i];
}

// exp(-2 |y|), of which tanh and its slope are quotients without cancellation where it matters.
VQK_INLINE Vec decay(Vec y) {
  const Vec magnitude = maximum(y, splat(0.0f) - y);
  return exponential(not_above_zero(magnitude * splat(-2.0f)));
}

VQK_INLINE Vec clamped(Vec y) { return minimum(maximum(y, splat(-1.0f)), splat(1.0f)); }

// tanh(y), with an absolute error of a few units of 2^-24. NaN lanes may hold anything.
VQK_INLINE Vec tanh_of(Vec y) {
  const Vec e = decay(y);
  const Vec size = (splat(1.0f) - e) / (splat(1.0f) + e);
  return minimum(size, maximum(splat(0.0f) - size, y * splat(0x1p60f)));
}

// 1 - tanh(y)^2, with a relative error of a few units of 2^-24.
VQK_INLINE Vec tanh_slope(Vec y) {
  const Vec e = decay(y), sum = splat(1.0f) + e;
  return splat(4.0f) * e / (sum * sum);
}

}  // namespace vqk::VQK_LEVEL
