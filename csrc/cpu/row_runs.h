#pragma once

#include <cstdint>

#include "vqk/rows.h"

namespace vqk {
namespace {

// Splits rows [first, first + count) into runs that lie at one constant stride, and calls
// body(row, length, offset, stride) for each: `row` counts from 0 at `first`, `offset` is the
// element offset of the run's first row. Divides once, then steps like an odometer.
template <class Body>
void for_each_run(const Rows& rows, int64_t first, int64_t count, const Body& body) {
  if (count <= 0) return;
  int64_t index[max_row_dims];
  int64_t offset = 0;
  int64_t rest = first;
  for (int i = rows.num_dims - 1; i >= 0; --i) {
    index[i] = rest % rows.sizes[i];
    rest /= rows.sizes[i];
    offset += index[i] * rows.strides[i];
  }
  const int inner = rows.num_dims - 1;
  for (int64_t row = 0; row < count;) {
    int64_t length = rows.sizes[inner] - index[inner];
    if (length > count - row) length = count - row;
    body(row, length, offset, rows.strides[inner]);
    row += length;
    offset += length * rows.strides[inner];
    index[inner] += length;
    for (int i = inner; i > 0 && index[i] == rows.sizes[i]; --i) {
      offset += rows.strides[i - 1] - rows.sizes[i] * rows.strides[i];
      index[i] = 0;
      ++index[i - 1];
    }
  }
}

}  // namespace
}  // namespace vqk
