#pragma once

#include <cstdint>

#include "bound.h"
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
//
// This is a view of one block of memory, which a caller may keep: see vqk/prepare.h.
struct PackedCodebook {
  // Places the parts in `memory`, aligned to 64 bytes; null to learn `bytes` only.
  PackedCodebook(int64_t num_codes, int64_t dim, Metric metric, void* memory);

  // Fills the memory. codebook: (K, D). With `keep` it also holds the codebook itself. `next` is as
  // in distinct_codes.
  void pack(const float* codebook, bool keep, int threads, int32_t* next = nullptr);

  // Takes over memory that pack() has filled with `keep`. Returns false if it is not this level's
  // form of exactly this codebook.
  bool open(const float* codebook, int threads);

  // Bytes of memory, with and without `keep`.
  int64_t bytes, bytes_kept;

  int64_t num_codes, dim;
  Metric metric;
  Frame frame;
  int64_t num_positions;  // 0 when no code is finite
  int32_t* ids;           // (K,) index of the code at a position

  int64_t band_panels, num_panels, num_bands, num_groups, group_codes;
  int64_t panel_floats;
  // (num_panels, 1 + D, panel_codes) the scores to start from, -|b|^2/2, then b by
  // channel; a lane without a code starts from -infinity.
  float* panels;
  float *reach, *curve;  // (num_groups,) each, see bound.h

  int64_t exact_lanes;  // group_codes rounded up to a multiple of 8
  // (num_groups, exact_lanes / 8, D, 8) the codes as stored; NaN where there is none.
  float* exact;

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

 private:
  struct Header {
    uint64_t format;
    int64_t num_codes, dim, metric, num_positions;
    double scale, shift_norm;
  };

  void set_positions(int64_t count);
  void pack_band(const float* codebook, int64_t band, float* rows) const;

  Header* header_;
  double* shift_;
  float* kept_;  // (K, D)
};

}  // namespace vqk::VQK_LEVEL
