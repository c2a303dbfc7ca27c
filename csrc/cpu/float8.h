#pragma once

#include "simd.h"

namespace vqk::VQK_LEVEL {

// Eight float32 lanes at every level, for data that comes in eights.
typedef float Float8 __attribute__((vector_size(32), may_alias));
typedef float UnalignedFloat8 __attribute__((vector_size(32), may_alias, aligned(4)));

// Aligned to 32 bytes.
VQK_INLINE const Float8& load_float8(const float* from) {
  return *reinterpret_cast<const Float8*>(from);
}

// NaN lanes are passed over; infinite if all are NaN.
VQK_INLINE float smallest_lane(const Float8& a) {
#if defined(__AVX2__)
  const __m256 infinity = _mm256_set1_ps(__builtin_inff());
  const __m256 numbers =
      _mm256_blendv_ps(infinity, reinterpret_cast<const __m256&>(a),
                       _mm256_cmp_ps(reinterpret_cast<const __m256&>(a),
                                     reinterpret_cast<const __m256&>(a), _CMP_ORD_Q));
  __m128 b = _mm_min_ps(_mm256_castps256_ps128(numbers), _mm256_extractf128_ps(numbers, 1));
  b = _mm_min_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_min_ss(b, _mm_movehdup_ps(b)));
#else
  float smallest = __builtin_inff();
  for (int i = 0; i < 8; ++i) smallest = a[i] < smallest ? a[i] : smallest;
  return smallest;
#endif
}

// Bit i is set where a[i] <= b; NaN clears it.
VQK_INLINE unsigned lanes_not_above(const Float8& a, float b) {
#if defined(__AVX2__)
  return unsigned(_mm256_movemask_ps(
      _mm256_cmp_ps(reinterpret_cast<const __m256&>(a), _mm256_set1_ps(b), _CMP_LE_OQ)));
#else
  unsigned bits = 0;
  for (int i = 0; i < 8; ++i) bits |= a[i] <= b ? 1u << i : 0u;
  return bits;
#endif
}

}  // namespace vqk::VQK_LEVEL
