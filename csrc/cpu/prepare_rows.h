#pragma once

#include <cstdint>

#include "bound.h"

namespace vqk::VQK_LEVEL {

// What the preparation of a row leaves to do.
enum class RowState : int32_t {
  search,
  zero,       // cosine: every score is 0, the first code wins
  nonfinite,  // no code wins
};

struct RowPlan {
  RowBound bound;
  RowState state;
  float norm;  // at least |A|; infinite where bound.h excludes nothing, 0 where nothing is searched
};

// Shifts and scales rows as bound.h says and lays them out in tiles of `tile` rows, row fastest.
//   x:     (count, padded(D)) float32, aligned to 32 bytes, padding zero
//   rows:  (tile, padded(D)) scratch
//   z:     (count / tile rounded up, D, tile) out
//   plans: (count,) out
void prepare_rows(const Frame& frame, const float* x, int64_t count, int64_t tile, float* rows,
                  float* z, RowPlan* plans);

// Turns `tile` rows, (tile, padded(D)), into z, (D, tile).
void interleave_rows(const float* rows, int64_t dim, int64_t tile, float* z);

}  // namespace vqk::VQK_LEVEL
