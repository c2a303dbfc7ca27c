#pragma once

#include <cstdint>

#include "inline.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace vqk::VQK_LEVEL {

// The screen's vectors: as wide as the level has them. multiply_add is fused where the level can,
// so screen scores differ between levels; the certificate covers either rounding.
#if defined(__AVX2__)

VQK_INLINE float largest_of_8(__m256 a) {
  __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  b = _mm_max_ps(b, _mm_movehl_ps(b, b));
  return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}

#endif

#if defined(__AVX512F__)

using Vec = __m512;
constexpr int lanes = 16;
VQK_INLINE Vec load(const float* p) { return _mm512_load_ps(p); }
VQK_INLINE void store(float* p, Vec a) { _mm512_store_ps(p, a); }
VQK_INLINE Vec splat(float a) { return _mm512_set1_ps(a); }
VQK_INLINE Vec multiply_add(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
// GCC 12 warns about its own unmasked forms (bug 105593); all lanes are selected here.
VQK_INLINE Vec maximum(Vec a, Vec b) { return _mm512_maskz_max_ps(0xffff, a, b); }
VQK_INLINE Vec minimum(Vec a, Vec b) { return _mm512_maskz_min_ps(0xffff, a, b); }
VQK_INLINE float largest_lane(Vec a) {
  return largest_of_8(_mm256_max_ps(_mm512_maskz_extractf32x8_ps(0xff, a, 0),
                                    _mm512_maskz_extractf32x8_ps(0xff, a, 1)));
}
// Bit i is set unless a[i] < b[i]; NaN sets it.
VQK_INLINE unsigned not_less(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_NLT_UQ); }

using IntVec = __m512i;
VQK_INLINE IntVec load(const int32_t* p) { return _mm512_load_si512(p); }
VQK_INLINE void store(int32_t* p, IntVec a) { _mm512_store_si512(p, a); }
VQK_INLINE IntVec splat(int32_t a) { return _mm512_set1_epi32(a); }
// a > b ? then : otherwise, lane by lane.
VQK_INLINE IntVec select_greater(Vec a, Vec b, IntVec then, IntVec otherwise) {
  return _mm512_mask_mov_epi32(otherwise, _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), then);
}

#elif defined(__AVX2__)

using Vec = __m256;
constexpr int lanes = 8;
VQK_INLINE Vec load(const float* p) { return _mm256_load_ps(p); }
VQK_INLINE void store(float* p, Vec a) { _mm256_store_ps(p, a); }
VQK_INLINE Vec splat(float a) { return _mm256_set1_ps(a); }
VQK_INLINE Vec multiply_add(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
VQK_INLINE Vec maximum(Vec a, Vec b) { return _mm256_max_ps(a, b); }
VQK_INLINE Vec minimum(Vec a, Vec b) { return _mm256_min_ps(a, b); }
VQK_INLINE float largest_lane(Vec a) { return largest_of_8(a); }
VQK_INLINE unsigned not_less(Vec a, Vec b) {
  return unsigned(_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_NLT_UQ)));
}

using IntVec = __m256i;
VQK_INLINE IntVec load(const int32_t* p) {
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(p));
}
VQK_INLINE void store(int32_t* p, IntVec a) {
  _mm256_store_si256(reinterpret_cast<__m256i*>(p), a);
}
VQK_INLINE IntVec splat(int32_t a) { return _mm256_set1_epi32(a); }
VQK_INLINE IntVec select_greater(Vec a, Vec b, IntVec then, IntVec otherwise) {
  return _mm256_castps_si256(_mm256_blendv_ps(
      _mm256_castsi256_ps(otherwise), _mm256_castsi256_ps(then), _mm256_cmp_ps(a, b, _CMP_GT_OQ)));
}

#else

typedef float Vec __attribute__((vector_size(16), may_alias));
constexpr int lanes = 4;
VQK_INLINE Vec load(const float* p) { return *reinterpret_cast<const Vec*>(p); }
VQK_INLINE void store(float* p, Vec a) { *reinterpret_cast<Vec*>(p) = a; }
VQK_INLINE Vec splat(float a) { return Vec{a, a, a, a}; }
VQK_INLINE Vec multiply_add(Vec a, Vec b, Vec c) { return a * b + c; }
VQK_INLINE Vec maximum(Vec a, Vec b) { return a > b ? a : b; }
VQK_INLINE Vec minimum(Vec a, Vec b) { return a < b ? a : b; }
VQK_INLINE unsigned not_less(Vec a, Vec b) {
  const auto less = a < b;
  return (less[0] ? 0u : 1u) | (less[1] ? 0u : 2u) | (less[2] ? 0u : 4u) | (less[3] ? 0u : 8u);
}
VQK_INLINE float largest_lane(Vec a) {
  const float low = a[0] > a[1] ? a[0] : a[1];
  const float high = a[2] > a[3] ? a[2] : a[3];
  return low > high ? low : high;
}

typedef int32_t IntVec __attribute__((vector_size(16), may_alias));
VQK_INLINE IntVec load(const int32_t* p) { return *reinterpret_cast<const IntVec*>(p); }
VQK_INLINE void store(int32_t* p, IntVec a) { *reinterpret_cast<IntVec*>(p) = a; }
VQK_INLINE IntVec splat(int32_t a) { return IntVec{a, a, a, a}; }
VQK_INLINE IntVec select_greater(Vec a, Vec b, IntVec then, IntVec otherwise) {
  return a > b ? then : otherwise;
}

#endif

}  // namespace vqk::VQK_LEVEL
