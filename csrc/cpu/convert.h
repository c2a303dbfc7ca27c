#pragma once

#include <cstdint>

#include "inline.h"
#include "vqk/rows.h"

// Conversions to and from the storage types, branch-free so that every level vectorises them, and
// in integer arithmetic so that all levels agree on every bit, NaN included.
namespace vqk {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

VQK_INLINE float float_of_bits(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

VQK_INLINE uint32_t bits_of_float(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return bits;
}

VQK_INLINE float to_float(float value) { return value; }

VQK_INLINE float to_float(BFloat16 value) { return float_of_bits(uint32_t(value.bits) << 16); }

VQK_INLINE float to_float(Half value) {
  const uint32_t sign = uint32_t(value.bits & 0x8000u) << 16;
  const uint32_t magnitude = uint32_t(value.bits & 0x7fffu) << 13;
  // The product moves the exponent bias from 15 to 127 and normalises half's denormals.
  const uint32_t finite = bits_of_float(float_of_bits(magnitude) * 0x1p112f);
  const uint32_t special = magnitude | 0x7f800000u;
  return float_of_bits(sign | (magnitude >= 0x0f800000u ? special : finite));
}

VQK_INLINE void from_float(float value, float* out) { *out = value; }

VQK_INLINE void from_float(float value, BFloat16* out) {
  const uint32_t bits = bits_of_float(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const uint32_t quiet_nan = (bits >> 16) | 0x40u;
  out->bits = uint16_t((bits & 0x7fffffffu) > 0x7f800000u ? quiet_nan : rounded);
}

VQK_INLINE void from_float(float value, Half* out) {
  const uint32_t bits = bits_of_float(value);
  const uint32_t magnitude = bits & 0x7fffffffu;
  // 0.5 has the quantum of half's denormals, so the addition rounds to it.
  const uint32_t denormal = bits_of_float(float_of_bits(magnitude) + 0.5f) - bits_of_float(0.5f);
  const uint32_t normal = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  const uint32_t finite = magnitude < 0x38800000u ? denormal : normal;
  const uint32_t overflow = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
  const uint32_t rounded = magnitude >= 0x477ff000u ? overflow : finite;
  out->bits = uint16_t(((bits >> 16) & 0x8000u) | rounded);
}

namespace {

// body(pointer) with a null pointer of the storage type as a tag.
template <class Body>
void with_element_type(Dtype dtype, const Body& body) {
  switch (dtype) {
    case Dtype::float32:
      return body(static_cast<float*>(nullptr));
    case Dtype::float16:
      return body(static_cast<Half*>(nullptr));
    case Dtype::bfloat16:
      return body(static_cast<BFloat16*>(nullptr));
  }
}

}  // namespace

}  // namespace vqk
