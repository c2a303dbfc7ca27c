#pragma once

#include <cstdint>

#include "bound.h"
#include "packed_codebook.h"

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
};

// Shifts and scales rows as bound.h says and lays them out for the screen.
//   x:     (count, padded(D)) float32, aligned to 32 bytes, padding zero
//   rows:  (tile_rows, padded(D)) scratch
//   z:     (count / tile_rows rounded up, D, tile_rows) out
//   plans: (count,) out
void prepare_rows(const PackedCodebook& codes, const float* x, int64_t count, float* rows, float* z,
                  RowPlan* plans);

}  // namespace vqk::VQK_LEVEL
