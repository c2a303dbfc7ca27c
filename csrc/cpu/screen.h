#pragma once

#include <cstdint>

#include "simd.h"

namespace vqk::VQK_LEVEL {

// Register block of the screen: rows of x by vectors of codes. All accumulators stay in registers,
// 24 of AVX-512's 32 and 12 of the 16 elsewhere.
constexpr int tile_rows = lanes == 16 ? 12 : 6;
constexpr int panel_vectors = 2;
constexpr int panel_codes = panel_vectors * lanes;

// Scores of one tile of rows with one band of panels, reduced to the maximum per group.
//   z:      (D, tile_rows) the tile, row fastest
//   panels: (num_panels, 1 + D, panel_codes) as in PackedCodebook
//   maxima: (tile_rows, maxima_stride), of which the first `lanes` columns are written
void screen_band(const float* z, const float* panels, int64_t num_panels, int64_t dim,
                 float* maxima, int64_t maxima_stride);

}  // namespace vqk::VQK_LEVEL
