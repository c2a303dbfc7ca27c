#pragma once

#include "simd.h"

namespace vqk::VQK_LEVEL {

// Eight float64 lanes at every level, in as many registers as it takes: sums over lanes then have
// the same bits everywhere. (GCC moves a single vector wider than the registers through memory.)
constexpr int double_parts = 16 / lanes;
typedef double DoublePart __attribute__((vector_size(4 * lanes), may_alias));
typedef float FloatPart __attribute__((vector_size(2 * lanes), may_alias));

struct Double8 {
  DoublePart part[double_parts];
};

// Eight floats, aligned to 32 bytes.
VQK_INLINE Double8 widen(const float* from) {
  Double8 a;
#if defined(__AVX512F__)  // GCC 12 converts by halves
  a.part[0] = _mm512_maskz_cvtps_pd(0xff, _mm256_load_ps(from));
#else
  for (int p = 0; p < double_parts; ++p)
    a.part[p] = __builtin_convertvector(reinterpret_cast<const FloatPart*>(from)[p], DoublePart);
#endif
  return a;
}

// The same without the alignment.
VQK_INLINE Double8 widen_unaligned(const float* from) {
  alignas(32) float copy[8];
  __builtin_memcpy(copy, from, sizeof copy);
  return widen(copy);
}

VQK_INLINE void narrow(const Double8& a, float* to) {
#if defined(__AVX512F__)
  _mm256_store_ps(to, _mm512_maskz_cvtpd_ps(0xff, a.part[0]));
#else
  for (int p = 0; p < double_parts; ++p)
    reinterpret_cast<FloatPart*>(to)[p] = __builtin_convertvector(a.part[p], FloatPart);
#endif
}

// Eight doubles, aligned to 64 bytes.
VQK_INLINE Double8 load(const double* from) {
  Double8 a;
  for (int p = 0; p < double_parts; ++p) a.part[p] = reinterpret_cast<const DoublePart*>(from)[p];
  return a;
}

VQK_INLINE void store(const Double8& a, double* to) {
  for (int p = 0; p < double_parts; ++p) reinterpret_cast<DoublePart*>(to)[p] = a.part[p];
}

VQK_INLINE Double8 splat(double a) {
  Double8 result;
  for (int p = 0; p < double_parts; ++p) result.part[p] = a - DoublePart{};
  return result;
}

VQK_INLINE Double8 operator+(Double8 a, const Double8& b) {
  for (int p = 0; p < double_parts; ++p) a.part[p] += b.part[p];
  return a;
}

VQK_INLINE Double8 operator-(Double8 a, const Double8& b) {
  for (int p = 0; p < double_parts; ++p) a.part[p] -= b.part[p];
  return a;
}

VQK_INLINE Double8 operator*(Double8 a, const Double8& b) {
  for (int p = 0; p < double_parts; ++p) a.part[p] *= b.part[p];
  return a;
}

VQK_INLINE Double8 operator/(Double8 a, const Double8& b) {
  for (int p = 0; p < double_parts; ++p) a.part[p] /= b.part[p];
  return a;
}

// NaN lanes are passed over.
VQK_INLINE double largest_lane(const Double8& a) {
#if defined(__AVX512F__)
  const __m512d numbers =
      _mm512_mask_mov_pd(_mm512_set1_pd(-__builtin_inf()),
                         _mm512_cmp_pd_mask(a.part[0], a.part[0], _CMP_ORD_Q), a.part[0]);
  const __m256d four = _mm256_max_pd(_mm512_maskz_extractf64x4_pd(0xf, numbers, 0),
                                     _mm512_maskz_extractf64x4_pd(0xf, numbers, 1));
  const __m128d two = _mm_max_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
  return _mm_cvtsd_f64(_mm_max_sd(two, _mm_unpackhi_pd(two, two)));
#else
  alignas(64) double lane[8];
  store(a, lane);
  const auto larger = [](double b, double c) { return c > b ? c : b; };
  double largest = -__builtin_inf();
  for (int i = 0; i < 8; ++i) largest = larger(largest, lane[i]);
  return largest;
#endif
}

// Bit i is set where lane i equals b.
VQK_INLINE unsigned lanes_equal(const Double8& a, double b) {
#if defined(__AVX512F__)
  return _mm512_cmp_pd_mask(a.part[0], _mm512_set1_pd(b), _CMP_EQ_OQ);
#else
  alignas(64) double lane[8];
  store(a, lane);
  unsigned bits = 0;
  for (int i = 0; i < 8; ++i) bits |= lane[i] == b ? 1u << i : 0u;
  return bits;
#endif
}

VQK_INLINE double sum_lanes(const Double8& a) {
  alignas(64) double lane[8];
  store(a, lane);
  return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

}  // namespace vqk::VQK_LEVEL
