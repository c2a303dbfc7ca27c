#pragma once

#include <cstdint>

#include "memory.h"
#include "screen.h"
#include "simd.h"
#include "vqk/metric.h"

namespace vqk::VQK_LEVEL {

// A codebook laid out for the screen, with what the certificate and the exact score need.
//
// The codes that can win take positions 0, 1, ... in ascending order of index. A *panel* holds
// panel_vectors vectors of codes, one code per lane; band_panels panels form a *band*. Lane j of a
// band is a *group*: group_codes consecutive positions. The screen keeps one maximum per
// group, so that groups, not codes, are excluded or evaluated exactly.
struct PackedCodebook {
  PackedCodebook(const float* codebook, int64_t num_codes, int64_t dim, Metric metric,
                 int threads);  // codebook: (K, D)
  ~PackedCodebook();

  int64_t dim;
  Metric metric;
  int64_t num_positions;  // 0 when no code is finite
  Buffer<int32_t> ids;    // (K,) index of the code at a position

  double scale;          // 2^q: the largest |c - mu| becomes 1 to 2
  double shift_norm;     // |2^q mu|
  Buffer<double> shift;  // (padded(D),) mu

  int64_t band_panels, num_panels, num_bands, num_groups, group_codes;
  int64_t panel_floats;
  // (num_panels, 1 + D, panel_codes) the scores to start from, -|b|^2/2, then b by
  // channel; a lane without a code starts from -infinity.
  Buffer<float> panels;
  Buffer<float> reach, curve;  // (num_groups,) each, see bound.h

  int64_t exact_lanes;  // group_codes rounded up to a multiple of 8
  // (num_groups, exact_lanes / 8, D, 8) the codes as stored; NaN where there is none.
  Buffer<float> exact;

  VQK_INLINE int64_t panels_in_band(int64_t band) const {
    const int64_t left = num_panels - band * band_panels;
    return left < band_panels ? left : band_panels;
  }
  // The last band may have fewer panels, and then its groups fewer codes.
  VQK_INLINE int64_t first_position(int64_t group) const {
    const int64_t band = group / lanes;
    return band * lanes * group_codes +
           (group - band * lanes) * panels_in_band(band) * panel_vectors;
  }
};

}  // namespace vqk::VQK_LEVEL
