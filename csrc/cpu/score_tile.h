#pragma once

#include "screen.h"

namespace vqk::VQK_LEVEL {

// Scores of one tile of rows with one panel of codes.
//   z:     (D, tile_rows) the tile, row fastest
//   panel: (1 + D, panel_codes) the scores to start from, then the codes by channel
VQK_INLINE void score_tile(const float* z, const float* panel, int64_t dim,
                           Vec (&score)[tile_rows][panel_vectors]) {
#pragma GCC unroll 16
  for (int r = 0; r < tile_rows; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < panel_vectors; ++v) score[r][v] = load(panel + v * lanes);
#pragma GCC unroll 4
  for (int64_t i = 0; i < dim; ++i) {
    panel += panel_codes;
    Vec code[panel_vectors];
#pragma GCC unroll 4
    for (int v = 0; v < panel_vectors; ++v) code[v] = load(panel + v * lanes);
#pragma GCC unroll 16
    for (int r = 0; r < tile_rows; ++r) {
      const Vec value = splat(z[r]);
#pragma GCC unroll 4
      for (int v = 0; v < panel_vectors; ++v)
        score[r][v] = multiply_add(value, code[v], score[r][v]);
    }
    z += tile_rows;
  }
}

}  // namespace vqk::VQK_LEVEL
