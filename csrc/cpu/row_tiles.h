#pragma once

#include <cstdint>

#include "inline.h"
#include "vqk/rows.h"

namespace vqk {

// Tile rows are padded with zeros to a multiple of 8 floats, so that sums over lanes of 8 need no
// tail.
constexpr int64_t tile_pad = 8;

VQK_INLINE int64_t padded(int64_t dim) { return (dim + tile_pad - 1) / tile_pad * tile_pad; }

namespace VQK_LEVEL {

// Reads rows [first, first + count) into `tile`, (count, padded(D)) float32.
void load_rows(const Rows& rows, int64_t first, int64_t count, float* tile);

// Writes `tile`, (count, padded(D)) float32, to rows [first, first + count), rounding to their
// dtype.
void store_rows(const Rows& rows, int64_t first, int64_t count, const float* tile);

// Row `first` where the rows themselves lie as an aligned tile, to be used without a copy; else
// null.
float* tile_in_place(const Rows& rows, int64_t first);

// Rows [first, first + count) as a tile: in place, or read into `tile`.
const float* as_tile(const Rows& rows, int64_t first, int64_t count, float* tile);

}  // namespace VQK_LEVEL
}  // namespace vqk
