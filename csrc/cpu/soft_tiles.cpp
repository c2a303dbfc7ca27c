#include "soft_tiles.h"

namespace vqk::VQK_LEVEL {
namespace {

// The terms of a side: its own in every lane, or one for all lanes.
template <bool in_lanes>
VQK_INLINE Vec term(const float* terms, int64_t stream, int v) {
  return in_lanes ? load(terms + v * lanes) : splat(terms[stream]);
}

template <bool rows_in_lanes>
VQK_INLINE void weigh(float* logits, int64_t count, const RowTerms& rows, const float* of_code,
                      double* totals) {
  alignas(64) float sums[panel_codes];
  for (int v = 0; v < panel_vectors; ++v) {
    Vec total = splat(0.0f);
    for (int64_t tile = 0; tile < count; tile += tile_rows) {
      const int64_t end = count < tile + tile_rows ? count : tile + tile_rows;
      Vec tile_total = splat(0.0f);
      for (int64_t s = tile; s < end; ++s) {
        float* at = logits + s * panel_codes + v * lanes;
        const Vec high = term<rows_in_lanes>(rows.high, s, v);
        const Vec low = term<rows_in_lanes>(rows.low, s, v);
        const Vec below = not_above_zero(below_normaliser(load(at), high, low));
        const Vec factor = multiply_add(term<rows_in_lanes>(rows.slope, s, v), below,
                                        term<rows_in_lanes>(rows.row, s, v)) +
                           term<!rows_in_lanes>(of_code, s, v);
        const Vec weight = exponential(below) * factor;
        tile_total = tile_total + weight;
        store(at, weight);
      }
      total = total + tile_total;
    }
    store(sums + v * lanes, total);
  }
  for (int i = 0; i < panel_codes; ++i) totals[i] += double(sums[i]);
}

// `channels` channels of every lane's sum, in registers.
template <int channels>
VQK_INLINE void pull_channels(const float* weights, int64_t count, const float* vectors,
                              int64_t width, double* sums) {
  Vec sum[channels][panel_vectors];
#pragma GCC unroll 16
  for (int i = 0; i < channels; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < panel_vectors; ++v) sum[i][v] = splat(0.0f);
#pragma GCC unroll 2
  for (int64_t s = 0; s < count; ++s) {
    Vec weight[panel_vectors];
#pragma GCC unroll 4
    for (int v = 0; v < panel_vectors; ++v) weight[v] = load(weights + v * lanes);
#pragma GCC unroll 16
    for (int i = 0; i < channels; ++i) {
      const Vec value = splat(vectors[i]);
#pragma GCC unroll 4
      for (int v = 0; v < panel_vectors; ++v) sum[i][v] = multiply_add(value, weight[v], sum[i][v]);
    }
    weights += panel_codes;
    vectors += width;
  }
  alignas(64) float parts[channels * panel_codes];
#pragma GCC unroll 16
  for (int i = 0; i < channels; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < panel_vectors; ++v) store(parts + i * panel_codes + v * lanes, sum[i][v]);
  for (int i = 0; i < channels * panel_codes; ++i) sums[i] += double(parts[i]);
}

}  // namespace

void tile_logits(const float* streams, int64_t tiles, const float* panel, int64_t dim,
                 float* logits) {
  for (int64_t t = 0; t < tiles; ++t) {
    Vec sum[tile_rows][panel_vectors];
#pragma GCC unroll 16
    for (int r = 0; r < tile_rows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < panel_vectors; ++v) sum[r][v] = splat(0.0f);
    const float* lane = panel;
#pragma GCC unroll 2
    for (int64_t i = 0; i <= dim; ++i) {
      Vec value[panel_vectors];
#pragma GCC unroll 4
      for (int v = 0; v < panel_vectors; ++v) value[v] = load(lane + v * lanes);
#pragma GCC unroll 16
      for (int r = 0; r < tile_rows; ++r) {
        const Vec stream = splat(streams[r]);
#pragma GCC unroll 4
        for (int v = 0; v < panel_vectors; ++v)
          sum[r][v] = multiply_add(stream, value[v], sum[r][v]);
      }
      streams += tile_rows;
      lane += panel_codes;
    }
#pragma GCC unroll 16
    for (int r = 0; r < tile_rows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < panel_vectors; ++v)
        store(logits + v * lanes + r * panel_codes, sum[r][v]);
    logits += tile_rows * panel_codes;
  }
}

void weigh_rows_in_lanes(float* logits, int64_t count, const RowTerms& rows, const float* of_code,
                         double* totals) {
  weigh<true>(logits, count, rows, of_code, totals);
}

void weigh_codes_in_lanes(float* logits, int64_t count, const RowTerms& rows, const float* of_code,
                          double* totals) {
  weigh<false>(logits, count, rows, of_code, totals);
}

void pull(const float* weights, int64_t count, const float* vectors, int64_t dim, double* sums) {
  const int64_t width = pull_width(dim);
  int64_t i = 0;
  for (; i + tile_rows <= width; i += tile_rows)
    pull_channels<tile_rows>(weights, count, vectors + i, width, sums + i * panel_codes);
  if constexpr (tile_rows > 8) {
    if (i + 8 <= width) {
      pull_channels<8>(weights, count, vectors + i, width, sums + i * panel_codes);
      i += 8;
    }
  }
  for (; i + 4 <= width; i += 4)
    pull_channels<4>(weights, count, vectors + i, width, sums + i * panel_codes);
  if (i < width) pull_channels<2>(weights, count, vectors + i, width, sums + i * panel_codes);
}

}  // namespace vqk::VQK_LEVEL
