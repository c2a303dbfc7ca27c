#pragma once

#include <cstdint>

#include "codebook_survey.h"
#include "convert.h"
#include "memory.h"
#include "soft_tiles.h"
#include "vqk/rows.h"

namespace vqk::VQK_LEVEL {

// Whether no value is NaN or infinite.
VQK_INLINE bool all_finite(const float* values, int64_t count) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t magnitude = bits_of_float(values[i]) & 0x7fffffffu;
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest < 0x7f800000u;
}

// Where the numbers of a soft assignment live. With mu the centre of the codes and 2^q their scale,
//   -|x - c|^2 / temperature = gain (x - mu) . 2^q (c - mu) - |c - mu|^2 / temperature
//                              - |x - mu|^2 / temperature,   gain = 2 / (2^q temperature).
// The last term is the row's own: kept apart in float64, it cancels nothing.
//
// Below a temperature at which the codes' logits reach 2^40, p is that of the nearest code whatever
// the temperature: logits are formed at that one, and `sharpness` times too small.
struct SoftFrame {
  SoftFrame(const float* codebook, int64_t num_codes, int64_t dim, double temperature, int threads);
  ~SoftFrame();

  int64_t dim;
  CodebookSurvey survey;
  double reach;        // the largest |c_i - mu_i| of a finite code
  double sharpness;    // at least 1
  double temperature;  // sharpness times the one given
  double gain;

  // Both pack `count` vectors into the first columns of (1 + D, width), vector fastest, filling
  // the others with vectors that weigh nothing, and, unless it is null, write x - mu or c - mu to
  // `centred`, (count, pull_width(D)). What does not take part is zero there.

  // codes: (count, D)
  void pack_codes(const float* codes, int64_t count, int64_t width, float* columns,
                  float* centred) const;

  // tile: (count, padded(D)); mask: (count,) or null.
  // constants: (count,) out, |x - mu|^2 / temperature, infinite for rows that take no part
  void pack_rows(const float* tile, const uint8_t* mask, int64_t count, int64_t width,
                 float* columns, float* centred, double* constants) const;
};

// All codes as streams, in their own order.
struct StreamedCodes {
  StreamedCodes(const SoftFrame& frame, const float* codebook, int64_t num_codes, bool with_centred,
                int threads);
  ~StreamedCodes();

  int64_t num_codes, dim;
  Buffer<float> columns;  // (K / tile_rows rounded up, 1 + D, tile_rows)
  Buffer<float> centred;  // (K, pull_width(D)), or none

  VQK_INLINE const float* tile(int64_t code) const { return columns.data() + code * (1 + dim); }
};

// Cuts the log-normaliser of a row's logits in two, so that their difference is exact where it is
// small. `constant` is that of pack_rows.
VQK_INLINE void split_normaliser(const SoftFrame& frame, double logsumexp, double constant,
                                 float* high, float* low) {
  const double normaliser = logsumexp / frame.sharpness + constant;
  *high = float(normaliser);
  *low = *high - *high == 0.0f ? float(normaliser - double(*high)) : 0.0f;
}

}  // namespace vqk::VQK_LEVEL
