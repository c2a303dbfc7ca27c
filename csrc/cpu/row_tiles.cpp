#include "row_tiles.h"

#include "convert.h"
#include "row_runs.h"
#include "transpose.h"

namespace vqk::VQK_LEVEL {
namespace {

// Whole groups of eight first: a loop of unknown length is no vector loop where D is 8.
template <class Element>
void widen_row(const Element* from, int64_t dim, float* to) {
  int64_t i = 0;
  for (; i + 8 <= dim; i += 8) store8(load8(from + i), to + i);
  for (; i < dim; ++i) to[i] = to_float(from[i]);
}

template <class Element>
void narrow_row(const float* from, int64_t dim, Element* to) {
  int64_t i = 0;
  for (; i + 8 <= dim; i += 8) store8(load8(from + i), to + i);
  for (; i < dim; ++i) from_float(from[i], to + i);
}

// A run of neighbouring rows whose channels lie `step` apart, in squares of eight by eight: the
// planes of an image are often a power of two apart, and more than eight of them at a time would
// push each other out of the first-level cache.
template <class Element>
void load_planes(const Element* from, int64_t step, int64_t count, int64_t dim, float* tile) {
  const int64_t width = padded(dim);
  const int64_t whole_rows = count / 8 * 8, whole_dim = dim / 8 * 8;
  for (int64_t i = 0; i < whole_dim; i += 8)
    for (int64_t r = 0; r < whole_rows; r += 8)
      transpose8(from + i * step + r, step, tile + r * width + i, width);
  for (int64_t i = 0; i < dim; ++i)
    for (int64_t r = i < whole_dim ? whole_rows : 0; r < count; ++r)
      tile[r * width + i] = to_float(from[i * step + r]);
}

template <class Element>
void store_planes(const float* tile, int64_t step, int64_t count, int64_t dim, Element* to) {
  const int64_t width = padded(dim);
  const int64_t whole_rows = count / 8 * 8, whole_dim = dim / 8 * 8;
  for (int64_t i = 0; i < whole_dim; i += 8)
    for (int64_t r = 0; r < whole_rows; r += 8)
      transpose8(tile + r * width + i, width, to + i * step + r, step);
  for (int64_t i = 0; i < dim; ++i)
    for (int64_t r = i < whole_dim ? whole_rows : 0; r < count; ++r)
      from_float(tile[r * width + i], to + i * step + r);
}

}  // namespace

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
                       widen_row(source + r * stride, dim, target + r * width);
                   } else if (stride == 1) {
                     load_planes(source, step, length, dim, target);
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
                       narrow_row(source + r * width, dim, target + r * stride);
                   } else if (stride == 1) {
                     store_planes(source, step, length, dim, target);
                   } else {
                     for (int64_t i = 0; i < dim; ++i)
                       for (int64_t r = 0; r < length; ++r)
                         from_float(source[r * width + i], target + i * step + r * stride);
                   }
                 });
  });
}

float* tile_in_place(const Rows& rows, int64_t first) {
  if (rows.dtype != Dtype::float32 || rows.dim_stride != 1 || rows.num_dims != 1 ||
      rows.strides[0] != rows.dim || padded(rows.dim) != rows.dim)
    return nullptr;
  float* data = static_cast<float*>(rows.data) + first * rows.dim;
  return reinterpret_cast<uintptr_t>(data) % 32 == 0 ? data : nullptr;
}

const float* as_tile(const Rows& rows, int64_t first, int64_t count, float* tile) {
  if (const float* in_place = tile_in_place(rows, first)) return in_place;
  load_rows(rows, first, count, tile);
  return tile;
}

}  // namespace vqk::VQK_LEVEL
