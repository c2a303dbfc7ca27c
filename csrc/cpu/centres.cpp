#include "centres.h"

#include "bound.h"
#include "memory.h"
#include "row_tiles.h"
#include "score_tile.h"

namespace vqk::VQK_LEVEL {
namespace {

constexpr float no_centre = -0x1p100f;

}  // namespace

Centres::Centres(int64_t num_centres, int64_t centre_dim, void* memory)
    : count(num_centres), stride(padded_count(num_centres)), dim(centre_dim) {
  Parts parts{static_cast<float*>(memory), 0};
  rows = parts.take(count * padded(dim));
  panels = parts.take(stride * (1 + dim));
  reach = parts.take(stride);
  bytes = parts.floats * int64_t(sizeof(float));
}

void Centres::lay_out() const {
  const int64_t width = padded(dim);
  for (int64_t g = 0; g < stride; ++g) {
    float* panel = panels + g / panel_codes * panel_codes * (1 + dim) + g % panel_codes;
    double square = 0.0;
    for (int64_t i = 0; i < dim; ++i) {
      const float value = g < count ? rows[g * width + i] : 0.0f;
      square += double(value) * double(value);
      panel[(1 + i) * panel_codes] = value;
    }
    panel[0] = g < count ? float(-0.5 * square) : no_centre;
    reach[g] = group_reach(__builtin_sqrt(square));
  }
}

void Centres::score(const float* z, float* scores) const {
  for (int64_t first = 0; first < stride; first += panel_codes) {
    Vec score[tile_rows][panel_vectors];
    score_tile(z, panels + first * (1 + dim), dim, score);
#pragma GCC unroll 16
    for (int r = 0; r < tile_rows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < panel_vectors; ++v)
        store(scores + r * score_stride() + first + v * lanes, score[r][v]);
  }
}

float best_score(const float* scores, int64_t count, int64_t* place) {
  Vec best = load(scores);
  IntVec where = splat(int32_t(0));
  for (int64_t g = lanes; g < count; g += lanes) {
    const Vec score = load(scores + g);
    where = select_greater(score, best, splat(int32_t(g)), where);
    best = maximum(score, best);
  }
  const float largest = largest_lane(best);
  alignas(64) int32_t places[lanes];
  store(places, where);
  const int lane = __builtin_ctz(not_less(best, splat(largest)));
  *place = places[lane] + lane;
  return largest;
}

}  // namespace vqk::VQK_LEVEL
