#include "row_tiles.h"

#include "convert.h"
#include "row_runs.h"

namespace vqk::VQK_LEVEL {

void load_rows(const Rows& rows, int64_t first, int64_t count, float* tile) {
  const int64_t dim = rows.dim, width = padded(dim), step = rows.dim_stride;
  for (int64_t row = 0; row < count; ++row)
    for (int64_t i = dim; i < width; ++i) tile[row * width + i] = 0.0f;

  with_element_type(rows.dtype, [&](auto* type) {
    const auto* data = static_cast<decltype(type)>(rows.data);
    for_each_run(rows, first, count,
                 [&](int64_t row, int64_t length, int64_t offset, int64_t stride) {
                   const auto* source = data + offset;
                   float* target = tile + row * width;
                   if (step == 1) {
                     for (int64_t r = 0; r < length; ++r)
                       for (int64_t i = 0; i < dim; ++i)
                         target[r * width + i] = to_float(source[r * stride + i]);
                   } else {
                     for (int64_t i = 0; i < dim; ++i)
                       for (int64_t r = 0; r < length; ++r)
                         target[r * width + i] = to_float(source[i * step + r * stride]);
                   }
                 });
  });
}

void store_rows(const Rows& rows, int64_t first, int64_t count, const float* tile) {
  const int64_t dim = rows.dim, width = padded(dim), step = rows.dim_stride;
  with_element_type(rows.dtype, [&](auto* type) {
    auto* data = static_cast<decltype(type)>(rows.data);
    for_each_run(rows, first, count,
                 [&](int64_t row, int64_t length, int64_t offset, int64_t stride) {
                   auto* target = data + offset;
                   const float* source = tile + row * width;
                   if (step == 1) {
                     for (int64_t r = 0; r < length; ++r)
                       for (int64_t i = 0; i < dim; ++i)
                         from_float(source[r * width + i], &target[r * stride + i]);
                   } else {
                     for (int64_t i = 0; i < dim; ++i)
                       for (int64_t r = 0; r < length; ++r)
                         from_float(source[r * width + i], &target[i * step + r * stride]);
                   }
                 });
  });
}

}  // namespace vqk::VQK_LEVEL
