#pragma once

#include <cstdint>

#include "inline.h"
#include "vqk/rows.h"

namespace vqk {

// Shorter rows have no direction: u = x / max(|x|, smallest_norm).
constexpr double smallest_norm = 1e-12;

VQK_INLINE double unit_divisor(double norm) { return norm < smallest_norm ? smallest_norm : norm; }

namespace VQK_LEVEL {

// norms[r] = |x_r| in float64, squares added with the channel ascending.
//   tile:  (count, padded(D)) float32
//   norms: (count,) out; NaN or infinite exactly for rows with NaN or infinity
void tile_norms(const float* tile, int64_t count, int64_t dim, double* norms);

// The same for all rows: norms is (N,).
void row_norms(const Rows& rows, double* norms, int threads);

}  // namespace VQK_LEVEL
}  // namespace vqk
