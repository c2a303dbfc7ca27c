#pragma once

#include <cstdint>
#include <cstring>

struct __half {
  _Float16 value;
};

inline __half __ushort_as_half(uint16_t bits) {
  __half half;
  std::memcpy(&half, &bits, sizeof half);
  return half;
}
inline float __half2float(__half half) { return float(half.value); }
