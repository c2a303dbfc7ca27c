#pragma once

#include <cstdint>

#include "memory.h"
#include "vqk/rows.h"

namespace vqk::VQK_LEVEL {

// Some rows of a call, spread over it, by which a search is chosen: so few that searching them once
// more costs next to nothing, unless the call is short.
struct RowSample {
  RowSample(const Rows& x, int threads);

  int64_t count;
  Buffer<float> tile;  // (count, padded(D))
};

}  // namespace vqk::VQK_LEVEL
