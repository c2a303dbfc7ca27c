#include "packed_codebook.h"

#include "bound.h"
#include "distinct_codes.h"
#include "parallel.h"
#include "row_tiles.h"
#include "screen.h"

namespace vqk::VQK_LEVEL {
namespace {

// mu, the mean of the codes that can win: without it, codes far from the origin cancel.
void find_shift(PackedCodebook& packed, const float* codebook) {
  const int64_t dim = packed.dim;
  for (int64_t i = 0; i < padded(dim); ++i) packed.shift[i] = 0.0;
  for (int64_t p = 0; p < packed.num_positions; ++p) {
    const float* code = codebook + packed.ids[p] * dim;
    for (int64_t i = 0; i < dim; ++i) packed.shift[i] += double(code[i]);
  }
  if (packed.num_positions == 0) return;
  for (int64_t i = 0; i < dim; ++i)
    packed.shift[i] = double(float(packed.shift[i] / double(packed.num_positions)));
}

void find_scale(PackedCodebook& packed, const float* codebook) {
  const int64_t dim = packed.dim;
  double largest = 0.0, shift_square = 0.0;
  for (int64_t p = 0; p < packed.num_positions; ++p) {
    const float* code = codebook + packed.ids[p] * dim;
    for (int64_t i = 0; i < dim; ++i) {
      const double magnitude = __builtin_fabs(double(code[i]) - packed.shift[i]);
      largest = magnitude > largest ? magnitude : largest;
    }
  }
  for (int64_t i = 0; i < dim; ++i) shift_square += packed.shift[i] * packed.shift[i];
  packed.scale = largest > 0.0 ? __builtin_ldexp(1.0, -__builtin_ilogb(largest)) : 1.0;
  packed.shift_norm = packed.scale * __builtin_sqrt(shift_square);
}

void choose_shape(PackedCodebook& packed) {
  packed.num_panels = (packed.num_positions + panel_codes - 1) / panel_codes;
  // sqrt(K / D) codes per group balance the exact pass against the scan over groups.
  packed.band_panels = 4;
  while (packed.band_panels < 16 &&
         4 * packed.band_panels * packed.band_panels * packed.dim < packed.num_positions)
    packed.band_panels *= 2;
  packed.num_bands = (packed.num_panels + packed.band_panels - 1) / packed.band_panels;
  packed.num_groups = packed.num_bands * lanes;
  packed.group_codes = packed.band_panels * panel_vectors;
  packed.exact_lanes = padded(packed.group_codes);
  packed.panel_floats = (1 + packed.dim) * panel_codes;
}

// Writes one code into its lane of a panel, and returns |b|.
double pack_code(const PackedCodebook& packed, const float* code, float* lane) {
  double square = 0.0, rounded_square = 0.0;
  for (int64_t i = 0; i < packed.dim; ++i) {
    const double value = (double(code[i]) - packed.shift[i]) * packed.scale;
    const float rounded = float(value);
    lane[(1 + i) * panel_codes] = rounded;
    square += value * value;
    rounded_square += double(rounded) * double(rounded);
  }
  lane[0] = packed.metric == Metric::l2 ? -float(0.5 * square) : 0.0f;
  return __builtin_sqrt(rounded_square);
}

void pack_band(PackedCodebook& packed, const float* codebook, int64_t band) {
  const int64_t dim = packed.dim;
  const int64_t codes = packed.panels_in_band(band) * panel_vectors;
  float* panels = packed.panels.data() + band * packed.band_panels * packed.panel_floats;
  for (int64_t j = 0; j < lanes; ++j) {
    const int64_t group = band * lanes + j;
    float* exact = packed.exact.data() + group * packed.exact_lanes * dim;
    double largest = 0.0;
    for (int64_t t = 0; t < packed.exact_lanes; ++t) {
      const int64_t position = packed.first_position(group) + t;
      const bool present = t < codes && position < packed.num_positions;
      const float* code = present ? codebook + packed.ids[position] * dim : nullptr;
      float* exact_lane = exact + t / 8 * dim * 8 + t % 8;
      for (int64_t i = 0; i < dim; ++i) exact_lane[i * 8] = present ? code[i] : __builtin_nanf("");
      if (t >= codes) continue;

      float* lane =
          panels + t / panel_vectors * packed.panel_floats + t % panel_vectors * lanes + j;
      if (present) {
        const double norm = pack_code(packed, code, lane);
        largest = norm > largest ? norm : largest;
      } else {
        lane[0] = -__builtin_inff();
        for (int64_t i = 0; i < dim; ++i) lane[(1 + i) * panel_codes] = 0.0f;
      }
    }
    packed.reach[group] = group_reach(largest);
    packed.curve[group] = group_curve(largest, dim, packed.metric);
  }
}

}  // namespace

PackedCodebook::PackedCodebook(const float* codebook, int64_t num_codes, int64_t code_dim,
                               Metric code_metric, int threads)
    : dim(code_dim), metric(code_metric), ids(num_codes), shift(padded(code_dim)) {
  num_positions = distinct_codes(codebook, num_codes, dim, ids.data());
  choose_shape(*this);
  find_shift(*this, codebook);
  find_scale(*this, codebook);
  panels.resize(num_panels * panel_floats);
  reach.resize(num_groups);
  curve.resize(num_groups);
  exact.resize(num_groups * exact_lanes * dim);
  parallel_for(num_bands, threads, [&](int64_t band, int) { pack_band(*this, codebook, band); });
}

PackedCodebook::~PackedCodebook() = default;

}  // namespace vqk::VQK_LEVEL
