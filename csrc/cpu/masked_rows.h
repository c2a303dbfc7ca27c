#pragma once

#include <cstdint>

namespace vqk::VQK_LEVEL {
namespace {

// Packs the unmasked rows of a tile to its front, and copies the masked ones to the same row of
// `out`. Returns how many were packed.
//   mask:      (count,) 0 masks the row
//   tile, out: (count, width)
//   positions: (count,) out: where each packed row stood
int64_t separate_masked(const uint8_t* mask, int64_t count, int64_t width, float* tile, float* out,
                        int64_t* positions) {
  int64_t kept = 0;
  for (int64_t r = 0; r < count; ++r) {
    const bool keep = mask[r] != 0;
    float* target = keep ? tile + kept * width : out + r * width;
    if (target != tile + r * width)
      for (int64_t i = 0; i < width; ++i) target[i] = tile[r * width + i];
    if (keep) positions[kept++] = r;
  }
  return kept;
}

}  // namespace
}  // namespace vqk::VQK_LEVEL
