#pragma once

#include <cstdint>

#include "vqk/residual.h"

namespace vqk::VQK_LEVEL {

// What the assignment of all levels leaves for their statistics.
struct LevelRows {
  int32_t* levels;  // (N,) levels, from 0 on, that the row is finite at and takes part in
  double* errors;   // (L, errors_stride) |r_l - c_l|^2, 0 where the row takes no part
  int64_t errors_stride;
  float* residuals;  // (N, padded(D)) holds x, is used up; null when there is nothing to sum
};

// counts, sums and code_remainders. The levels of all rows one after the other: the rows of a code
// are added in an order that no thread count changes.
void residual_sums(const Residual& args, const LevelRows& rows);

}  // namespace vqk::VQK_LEVEL
