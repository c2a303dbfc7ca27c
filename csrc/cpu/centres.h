#pragma once

#include <cstdint>

#include "screen.h"

namespace vqk::VQK_LEVEL {

// Centres of cells, laid out as a codebook's panels are, and scored as its codes are:
// s_g(y) = y.m_g - |m_g|^2/2 is the largest for the nearest one. A view of a caller's memory.
struct Centres {
  int64_t count;   // G
  int64_t stride;  // G rounded up to whole panels: a row of scores or of a table over centres
  int64_t dim;
  float* rows;    // (G, padded(D)) the centres, padding zero
  float* panels;  // (stride / panel_codes, 1 + D, panel_codes)
  float* reach;   // (stride,) at least |m_g|

  // Places the parts in `memory`, aligned to 64 bytes; null to learn `bytes` only.
  Centres(int64_t count, int64_t dim, void* memory);

  int64_t bytes;

  static int64_t padded_count(int64_t count) {
    return (count + panel_codes - 1) / panel_codes * panel_codes;
  }

  // Fills panels and reach from rows.
  void lay_out() const;

  // Scores lie further apart than that: rows a power of two apart would push each other out of the
  // first-level cache.
  int64_t score_stride() const { return stride + 16; }

  // Scores one tile of rows: z (D, tile_rows), scores (tile_rows, score_stride()) out. Where there
  // is no centre the score is finite and below all others.
  void score(const float* z, float* scores) const;
};

// The best of `count` scores, a multiple of lanes, and its place; the first of equal ones in a
// lane.
float best_score(const float* scores, int64_t count, int64_t* place);

}  // namespace vqk::VQK_LEVEL
