#include "screen.h"

namespace vqk::VQK_LEVEL {

void screen_band(const float* z, const float* panels, int64_t num_panels, int64_t dim,
                 float* maxima, int64_t maxima_stride) {
  Vec best[tile_rows];
#pragma GCC unroll 16
  for (int r = 0; r < tile_rows; ++r) best[r] = splat(-__builtin_inff());
  for (int64_t p = 0; p < num_panels; ++p) {
    Vec score[tile_rows][panel_vectors];
#pragma GCC unroll 16
    for (int r = 0; r < tile_rows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < panel_vectors; ++v) score[r][v] = load(panels + v * lanes);
    panels += panel_codes;

    const float* values = z;
#pragma GCC unroll 4
    for (int64_t i = 0; i < dim; ++i) {
      Vec code[panel_vectors];
#pragma GCC unroll 4
      for (int v = 0; v < panel_vectors; ++v) code[v] = load(panels + v * lanes);
#pragma GCC unroll 16
      for (int r = 0; r < tile_rows; ++r) {
        const Vec value = splat(values[r]);
#pragma GCC unroll 4
        for (int v = 0; v < panel_vectors; ++v)
          score[r][v] = multiply_add(value, code[v], score[r][v]);
      }
      panels += panel_codes;
      values += tile_rows;
    }

#pragma GCC unroll 16
    for (int r = 0; r < tile_rows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < panel_vectors; ++v) best[r] = maximum(best[r], score[r][v]);
  }
#pragma GCC unroll 16
  for (int r = 0; r < tile_rows; ++r) store(maxima + r * maxima_stride, best[r]);
}

}  // namespace vqk::VQK_LEVEL
