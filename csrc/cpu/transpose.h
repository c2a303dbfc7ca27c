#pragma once

#include "convert.h"
#include "simd.h"

namespace vqk::VQK_LEVEL {

// Eight float32 values on their way between storage types.
struct Float8 {
#if defined(__AVX2__)
  __m256 value;
#else
  float value[8];
#endif
};

template <class Element>
VQK_INLINE Float8 load8(const Element* from) {
  alignas(32) float value[8];
  for (int i = 0; i < 8; ++i) value[i] = to_float(from[i]);
  Float8 a;
  __builtin_memcpy(&a, value, sizeof a);
  return a;
}

template <class Element>
VQK_INLINE void store8(const Float8& a, Element* to) {
  alignas(32) float value[8];
  __builtin_memcpy(value, &a, sizeof a);
  for (int i = 0; i < 8; ++i) from_float(value[i], to + i);
}

VQK_INLINE Float8 load8(const float* from) {
  Float8 a;
  __builtin_memcpy(&a, from, sizeof a);
  return a;
}

VQK_INLINE void store8(const Float8& a, float* to) { __builtin_memcpy(to, &a, sizeof a); }

// to[i * to_step + r] = from[r * from_step + i] for i and r below 8.
template <class From, class To>
VQK_INLINE void transpose8(const From* from, int64_t from_step, To* to, int64_t to_step) {
  Float8 row[8];
  for (int r = 0; r < 8; ++r) row[r] = load8(from + r * from_step);
#if defined(__AVX2__)
  __m256 pair[8], quad[8];
  for (int r = 0; r < 8; r += 2) {
    pair[r] = _mm256_unpacklo_ps(row[r].value, row[r + 1].value);
    pair[r + 1] = _mm256_unpackhi_ps(row[r].value, row[r + 1].value);
  }
  for (int r = 0; r < 8; r += 4)
    for (int half = 0; half < 2; ++half) {
      quad[r + 2 * half] = _mm256_shuffle_ps(pair[r + half], pair[r + half + 2], 0x44);
      quad[r + 2 * half + 1] = _mm256_shuffle_ps(pair[r + half], pair[r + half + 2], 0xee);
    }
  for (int i = 0; i < 4; ++i) {
    store8(Float8{_mm256_permute2f128_ps(quad[i], quad[i + 4], 0x20)}, to + i * to_step);
    store8(Float8{_mm256_permute2f128_ps(quad[i], quad[i + 4], 0x31)}, to + (i + 4) * to_step);
  }
#else
  for (int i = 0; i < 8; ++i) {
    Float8 column;
    for (int r = 0; r < 8; ++r) column.value[r] = row[r].value[i];
    store8(column, to + i * to_step);
  }
#endif
}

}  // namespace vqk::VQK_LEVEL
