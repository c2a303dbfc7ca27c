#pragma once

#include <cstdint>

#include "simd.h"

namespace vqk::VQK_LEVEL {

typedef int32_t IntLanes __attribute__((vector_size(4 * lanes)));

// exp is zero from here down, exactly: 2^-127 is built as the float with no bits set.
constexpr float exp_floor = -88.0296919f;

// exp(a) within 2 units in the last place, for exp_floor <= a <= 88. The argument is reduced to
// |r| <= log(2)/2 and the polynomial is that of the Cephes library's expf.
VQK_INLINE Vec exponential(Vec a) {
  const Vec round = splat(0x1.8p23f);
  const Vec shifted = multiply_add(a, splat(1.44269504f), round);
  const Vec power = shifted - round;
  Vec r = multiply_add(power, splat(-0.693359375f), a);
  r = multiply_add(power, splat(2.12194440e-4f), r);
  Vec p = multiply_add(splat(1.9875691500e-4f), r, splat(1.3981999507e-3f));
  p = multiply_add(p, r, splat(8.3334519073e-3f));
  p = multiply_add(p, r, splat(4.1665795894e-2f));
  p = multiply_add(p, r, splat(1.6666665459e-1f));
  p = multiply_add(p, r, splat(5.0000001201e-1f));
  p = multiply_add(p, r * r, r) + splat(1.0f);
  // The low bits of `shifted` are the power of two.
  const IntLanes exponent = ((IntLanes)shifted + 127) << 23;
  return p * (Vec)exponent;
}

// The exponent of a probability, brought to where `exponential` takes it; -infinity and NaN become
// the floor.
VQK_INLINE Vec not_above_zero(Vec a) { return minimum(maximum(a, splat(exp_floor)), splat(0.0f)); }

}  // namespace vqk::VQK_LEVEL
