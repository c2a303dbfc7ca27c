#pragma once

#include <cstdint>

#include "exponential.h"
#include "screen.h"

// Tiles of logits: vectors of one side in the lanes of a panel, those of the other side streamed
// past in blocks. Rows and codes can take either part, so that sums over codes and sums over rows
// are both made where they end, by one thread each and in one order.
//
// A vector is packed with a channel in front, 1 for a row and its bias for a code; the product of
// the two is then the logit but for a constant of the row.
namespace vqk::VQK_LEVEL {

// Streamed vectors at a time: their logits stay in the first-level cache.
constexpr int64_t block_streams = 96;
static_assert(block_streams % tile_rows == 0, "blocks are cut into whole tiles");

VQK_INLINE int64_t stream_tiles(int64_t count) { return (count + tile_rows - 1) / tile_rows; }

// Channels of a vector that is pulled, in whole registers of broadcast values.
VQK_INLINE int64_t pull_width(int64_t dim) { return (dim + 3) / 4 * 4; }

// What a row gives to its weights: p = exp(logit - high - low), times
// (row + slope * (logit - high - low) + of_code). Infinite `high` takes the row out.
struct RowTerms {
  float *high, *low, *row, *slope;
};

VQK_INLINE Vec below_normaliser(Vec logit, Vec high, Vec low) { return logit - high - low; }

// Logits of a block of streams with one panel.
//   streams: (tiles, 1 + D, tile_rows)
//   panel:   (1 + D, panel_codes)
//   logits:  (tiles * tile_rows, panel_codes) out
void tile_logits(const float* streams, int64_t tiles, const float* panel, int64_t dim,
                 float* logits);

// Turns the logits of a block into weights, in place, and adds the weights of each lane to
// `totals`, (panel_codes,). Terms of the lanes' side are (panel_codes,), of the other (count,).
void weigh_rows_in_lanes(float* logits, int64_t count, const RowTerms& rows, const float* of_code,
                         double* totals);
void weigh_codes_in_lanes(float* logits, int64_t count, const RowTerms& rows, const float* of_code,
                          double* totals);

// Adds the weighted sum of the streams to every lane.
//   weights: (count, panel_codes)
//   vectors: (count, pull_width(D))
//   sums:    (pull_width(D), panel_codes)
void pull(const float* weights, int64_t count, const float* vectors, int64_t dim, double* sums);

}  // namespace vqk::VQK_LEVEL
