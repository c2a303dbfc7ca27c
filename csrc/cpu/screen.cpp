#include "screen.h"

#include "score_tile.h"

namespace vqk::VQK_LEVEL {

void screen_band(const float* z, const float* panels, int64_t num_panels, int64_t dim,
                 float* maxima, int64_t maxima_stride) {
  Vec best[tile_rows];
#pragma GCC unroll 16
  for (int r = 0; r < tile_rows; ++r) best[r] = splat(-__builtin_inff());
  for (int64_t p = 0; p < num_panels; ++p) {
    Vec score[tile_rows][panel_vectors];
    score_tile(z, panels, dim, score);
    panels += (1 + dim) * panel_codes;
#pragma GCC unroll 16
    for (int r = 0; r < tile_rows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < panel_vectors; ++v) best[r] = maximum(best[r], score[r][v]);
  }
#pragma GCC unroll 16
  for (int r = 0; r < tile_rows; ++r) store(maxima + r * maxima_stride, best[r]);
}

}  // namespace vqk::VQK_LEVEL
