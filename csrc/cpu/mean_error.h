#pragma once

#include <cstdint>

#include "double8.h"

namespace vqk::VQK_LEVEL {
namespace {

// Mean over unmasked elements. Eight lanes, combined in a fixed order.
//   errors: (N,) squared errors of the rows, 0 where masked; aligned to 64 bytes
//   mask:   (N,) 0 masks the row; null keeps all
float mean_error(const double* errors, const uint8_t* mask, int64_t num_rows, int64_t dim) {
  Double8 lanes_total{};
  int64_t n = 0;
  for (; n + 8 <= num_rows; n += 8) lanes_total = lanes_total + load(errors + n);
  double total = sum_lanes(lanes_total);
  for (; n < num_rows; ++n) total += errors[n];

  int64_t valid = num_rows;
  if (mask != nullptr) {
    valid = 0;
    for (n = 0; n < num_rows; ++n) valid += mask[n] != 0;
  }
  return valid == 0 ? 0.0f : float(total / (double(valid) * double(dim)));
}

}  // namespace
}  // namespace vqk::VQK_LEVEL
