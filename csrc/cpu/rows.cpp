#include "vqk/rows.h"

#include <stdexcept>
#include <string>

namespace vqk {

Rows make_rows(void* data, Dtype dtype, const int64_t* sizes, const int64_t* strides, int num_dims,
               int64_t dim, int64_t dim_stride) {
  Rows rows{data, dtype, 0, {}, {}, 1, dim, dim_stride};
  for (int i = 0; i < num_dims; ++i) {
    rows.count *= sizes[i];
    if (sizes[i] == 1) continue;
    const int last = rows.num_dims - 1;
    if (last >= 0 && rows.strides[last] == strides[i] * sizes[i]) {
      rows.sizes[last] *= sizes[i];
      rows.strides[last] = strides[i];
      continue;
    }
    if (rows.num_dims == max_row_dims)
      throw std::invalid_argument("x must have at most " + std::to_string(max_row_dims) +
                                  " row dimensions that cannot be merged, got more");
    rows.sizes[rows.num_dims] = sizes[i];
    rows.strides[rows.num_dims] = strides[i];
    ++rows.num_dims;
  }
  if (rows.num_dims == 0) {
    rows.num_dims = 1;
    rows.sizes[0] = 1;
    rows.strides[0] = 0;
  }
  return rows;
}

}  // namespace vqk
