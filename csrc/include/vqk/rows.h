#pragma once

#include <cstdint>

namespace vqk {

enum class Dtype { float32, float16, bfloat16 };

constexpr int max_row_dims = 8;

// N row vectors of length D inside a tensor of any layout, read and written in place. Row n is the
// n-th position in row-major order of the row dimensions. Strides are in elements; 0 is allowed for
// inputs (expanded tensors).
struct Rows {
  void* data;  // first element of row 0
  Dtype dtype;
  int num_dims;                   // row dimensions, 1 to max_row_dims
  int64_t sizes[max_row_dims];    // (num_dims,) outermost first, product N
  int64_t strides[max_row_dims];  // (num_dims,)
  int64_t count;                  // N
  int64_t dim;                    // D
  int64_t dim_stride;             // between neighbouring elements of one row
};

// Merges neighbouring row dimensions where strides allow. `sizes` and `strides` are
// (num_dims,). Throws std::invalid_argument if more than max_row_dims remain.
Rows make_rows(void* data, Dtype dtype, const int64_t* sizes, const int64_t* strides, int num_dims,
               int64_t dim, int64_t dim_stride);

}  // namespace vqk
