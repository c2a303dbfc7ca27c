#pragma once

#include <cstdint>

#include "simd.h"

namespace vqk::VQK_LEVEL {

// The screen for few rows: rows across lanes, codes one after another, so that nothing has to be
// packed. A wide tile has several vectors of rows; a narrow one serves fewer than two vectors.
constexpr int stream_vectors = lanes == 16 ? 4 : 2;
constexpr int stream_codes = 6;  // of a wide block; a narrow one takes stream_vectors times as many
constexpr int stream_step = stream_codes * stream_vectors;

// The two best scores of each row of a tile, and the code of the best. Codes must ascend from call
// to call: on a tie the first stays the best and becomes the second too.
struct StreamBest {
  float* best;    // (tile,)
  float* second;  // (tile,)
  int32_t* code;  // (tile,)
};

// Scores of a tile with codes [first, first + count), `count` a multiple of stream_step.
//   z:     (D, tile) of which `vectors` * lanes rows, row fastest
//   codes: (count, D) b of bound.h
//   start: (count,) the scores to start from, -|b|^2/2
void stream_tile(const float* z, int vectors, const float* codes, const float* start, int64_t first,
                 int64_t count, int64_t dim, const StreamBest& best);

}  // namespace vqk::VQK_LEVEL
