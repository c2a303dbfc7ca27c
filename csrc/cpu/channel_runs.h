#pragma once

#include <cstdint>

#include "convert.h"
#include "row_runs.h"
#include "vqk/rows.h"

namespace vqk::VQK_LEVEL {
namespace {

// Reads channel i of rows [first, first + count) into `values`, (count,).
[[maybe_unused]] void load_channel(const Rows& rows, int64_t first, int64_t count, int64_t i,
                                   float* values) {
  with_element_type(rows.dtype, [&](auto* type) {
    const auto* data = static_cast<decltype(type)>(rows.data) + i * rows.dim_stride;
    for_each_run(rows, first, count,
                 [&](int64_t row, int64_t length, int64_t offset, int64_t stride) {
                   const auto* from = data + offset;
                   float* to = values + row;
                   if (stride == 1)
                     for (int64_t r = 0; r < length; ++r) to[r] = to_float(from[r]);
                   else
                     for (int64_t r = 0; r < length; ++r) to[r] = to_float(from[r * stride]);
                 });
  });
}

// Writes `values`, (count,), to channel i of rows [first, first + count), rounding to their dtype.
[[maybe_unused]] void store_channel(const float* values, int64_t first, int64_t count, int64_t i,
                                    const Rows& rows) {
  with_element_type(rows.dtype, [&](auto* type) {
    auto* data = static_cast<decltype(type)>(rows.data) + i * rows.dim_stride;
    for_each_run(rows, first, count,
                 [&](int64_t row, int64_t length, int64_t offset, int64_t stride) {
                   auto* to = data + offset;
                   const float* from = values + row;
                   if (stride == 1)
                     for (int64_t r = 0; r < length; ++r) from_float(from[r], to + r);
                   else
                     for (int64_t r = 0; r < length; ++r) from_float(from[r], to + r * stride);
                 });
  });
}

}  // namespace
}  // namespace vqk::VQK_LEVEL
