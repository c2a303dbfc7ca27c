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
// The codes that can win take positions 0, 1, ... by shell of CodebookSurvey (l2 only), and in
// ascending order of index within a shell. A *panel* holds
// panel_vectors vectors of codes, one code per lane; band_panels panels form a *band*. Lane j of a
// band is a *group*: group_codes consecutive positions. The screen keeps one maximum per
// group, so that groups, not codes, are excluded or evaluated exactly. A group has codes of one
// shell: its bound is as wide as the largest of them makes it.
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
  bool ascending;         // whether indices ascend with positions: there is one shell
  int32_t* ids;  // (most_positions,) index of the code at a position, -1 where there is none

  int64_t band_panels, num_panels, num_bands, num_groups, group_codes;
  int64_t panel_floats;
  // (num_panels, 1 + D, panel_codes) the scores to start from, -|b|^2/2, then b by
  // channel; a lane without a code starts from -infinity.
  float* panels;
  float *reach, *curve;  // (num_groups,) each, see bound.h
  float* beyond;         // (num_bands,) no |b| from this band on is smaller; 0 for cosine

  int64_t exact_lanes;  // group_codes rounded up to a multiple of 8
  // (num_groups, exact_lanes / 8, D, 8) the codes as stored; NaN where there is none.
  float* exact;

  VQK_INLINE int64_t panels_in_band(int64_t band) const {
    const int64_t left = num_panels - band * band_panels;
    return left < band_panels ? left : band_panels;
  }
  // At least the |B| of `count` codes; infinite where there are fewer.
  float norm_of_least(int64_t count) const;

  // How many bands, from the first on, may hold one of the best codes of a row with |A| <= norm.
  // least: norm_of_least(how many best codes).
  VQK_INLINE int64_t bands_within(float norm, float least) const {
    const double limit = far_norm(norm, least);
    int64_t bands = num_bands;
    while (bands > 1 && double(beyond[bands - 1]) > limit) --bands;
    return bands;
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
    int64_t ascending;
    double scale, shift_norm;
  };

  int64_t most_positions() const;
  void set_positions(int64_t count, bool in_order);
  int64_t order_by_shell(const uint8_t* shells, int64_t count) const;
  void pack_band(const float* codebook, int64_t band, float* rows) const;

  Header* header_;
  double* shift_;
  float* kept_;  // (K, D)
};

}  // namespace vqk::VQK_LEVEL
