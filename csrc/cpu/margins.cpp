#include "margins.h"

#include "memory.h"
#include "parallel.h"
#include "row_tiles.h"
#include "score_tile.h"

namespace vqk::VQK_LEVEL {
namespace {

constexpr float beyond = __builtin_inff();

// One worker's memory.
struct Scratch {
  float* z;           // (D, tile_rows)
  float* directions;  // (stride / panel_codes, 1 + D, panel_codes) from one centre to all
  float* inverse;     // (stride,) 1 / distance; 0 where float32 cannot tell the centres apart
  float* most;        // (stride,)
};

Scratch lay_out(const PrunedCodebook& codes, Parts& parts) {
  const Centres& centres = codes.centres;
  return {parts.take(tile_rows * codes.dim), parts.take(centres.stride * (1 + codes.dim)),
          parts.take(centres.stride), parts.take(centres.stride)};
}

void find_directions(const Centres& centres, int64_t g, const Scratch& scratch) {
  const float* own = centres.rows + g * padded(centres.dim);
  for (int64_t first = 0; first < centres.stride; first += panel_codes) {
    const float* panel = centres.panels + first * (1 + centres.dim);
    float* direction = scratch.directions + first * (1 + centres.dim);
    float square[panel_codes] = {}, inverse[panel_codes];
    for (int64_t i = 0; i < centres.dim; ++i)
      for (int j = 0; j < panel_codes; ++j) {
        const float difference = panel[(1 + i) * panel_codes + j] - own[i];
        direction[(1 + i) * panel_codes + j] = difference;
        square[j] += difference * difference;
      }
    for (int j = 0; j < panel_codes; ++j)
      inverse[j] = square[j] >= least_square_between ? 1.0f / __builtin_sqrtf(square[j]) : 0.0f;
    for (int j = 0; j < panel_codes; ++j) direction[j] = 0.0f;
    for (int64_t i = 1; i <= centres.dim; ++i)
      for (int j = 0; j < panel_codes; ++j) direction[i * panel_codes + j] *= inverse[j];
    for (int j = 0; j < panel_codes; ++j) scratch.inverse[first + j] = inverse[j];
  }
}

// Takes up to tile_rows codes from `position` on into z, the last one repeated. Returns how far it
// went.
int64_t take_codes(const PrunedCodebook& codes, int64_t position, int64_t end, float* z) {
  int64_t count = 0;
  for (; position < end && count < tile_rows; ++position) {
    if (codes.ids[position] < 0) continue;
    const float* column = codes.columns + position / lanes * codes.column_floats();
    for (int64_t i = 0; i < codes.dim; ++i)
      z[i * tile_rows + count] = column[(1 + i) * lanes + position % lanes];
    ++count;
  }
  for (int64_t i = 0; i < codes.dim && count > 0; ++i)
    for (int64_t r = count; r < tile_rows; ++r) z[i * tile_rows + r] = z[i * tile_rows];
  return count > 0 ? position : end;
}

// The largest products of the codes of cell g with all directions.
void largest_products(const PrunedCodebook& codes, int64_t g, const Scratch& scratch) {
  const int64_t stride = codes.centres.stride;
  for (int64_t j = 0; j < stride; ++j) scratch.most[j] = -beyond;
  const int64_t end = int64_t(codes.first_column[g + 1]) * lanes;
  for (int64_t position = int64_t(codes.first_column[g]) * lanes; position < end;) {
    position = take_codes(codes, position, end, scratch.z);
    for (int64_t first = 0; first < stride; first += panel_codes) {
      Vec score[tile_rows][panel_vectors];
      score_tile(scratch.z, scratch.directions + first * (1 + codes.dim), codes.dim, score);
#pragma GCC unroll 4
      for (int v = 0; v < panel_vectors; ++v) {
        Vec most = load(scratch.most + first + v * lanes);
#pragma GCC unroll 16
        for (int r = 0; r < tile_rows; ++r) most = maximum(most, score[r][v]);
        store(scratch.most + first + v * lanes, most);
      }
    }
  }
}

}  // namespace

void fill_margins(const PrunedCodebook& codes, int threads) {
  const Centres& centres = codes.centres;
  const int64_t stride = centres.stride;
  const float keep = float(1.0 - inverse_error(codes.dim));
  Parts sizes{nullptr, 0};
  lay_out(codes, sizes);
  const Buffer<float> memory(threads * sizes.floats);
  parallel_for(centres.count, threads, [&](int64_t g, int worker) {
    Parts parts{memory.data() + worker * sizes.floats, 0};
    const Scratch scratch = lay_out(codes, parts);
    find_directions(centres, g, scratch);
    largest_products(codes, g, scratch);
    for (int64_t j = 0; j < centres.count; ++j) {
      const float inverse = scratch.inverse[j];
      float* row = codes.margins + j * 2 * stride;
      row[g] = j == g ? beyond : -beyond;
      if (inverse > 0.0f) row[g] = cell_margin(inverse, scratch.most[j], codes.reach[g], codes.dim);
      row[stride + g] = inverse * keep;
    }
  });
  for (int64_t j = 0; j < centres.count; ++j)
    for (int64_t g = centres.count; g < stride; ++g) {
      codes.margins[j * 2 * stride + g] = beyond;
      codes.margins[(j * 2 + 1) * stride + g] = 0.0f;
    }
}

}  // namespace vqk::VQK_LEVEL
