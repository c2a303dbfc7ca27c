// What the tests call through ctypes: the ops of csrc/cuda, with plain arguments.

#include "vqk/cuda/code_sums.h"
#include "vqk/cuda/nearest_code.h"

namespace {

vqk::Rows rows(void* data, int dtype, int num_dims, const int64_t* sizes, const int64_t* strides,
               int64_t dim, int64_t dim_stride) {
  return vqk::make_rows(data, vqk::Dtype(dtype), sizes, strides, num_dims, dim, dim_stride);
}

}  // namespace

extern "C" {

// The row arguments of each: sizes and strides are (num_dims,).

int64_t nearest_code_workspace(int64_t num_rows, int64_t num_codes) {
  return vqk::cuda::nearest_code_workspace(num_rows, num_codes);
}

void nearest_code(void* x, int dtype, int num_dims, const int64_t* sizes, const int64_t* strides,
                  int64_t dim, int64_t dim_stride, const float* codebook, int64_t num_codes,
                  int metric, void* workspace, int64_t* indices, float* distances) {
  vqk::cuda::nearest_code({rows(x, dtype, num_dims, sizes, strides, dim, dim_stride),
                           codebook,
                           num_codes,
                           vqk::Metric(metric),
                           workspace,
                           indices,
                           distances,
                           {0, nullptr}});
}

void code_keys(void* x, int dtype, int num_dims, const int64_t* sizes, const int64_t* strides,
               int64_t dim, int64_t dim_stride, const int64_t* indices, const uint8_t* mask,
               int64_t num_codes, bool skip_nonfinite, int32_t* keys, double* scales) {
  vqk::cuda::code_keys({rows(x, dtype, num_dims, sizes, strides, dim, dim_stride),
                        indices,
                        mask,
                        num_codes,
                        skip_nonfinite,
                        keys,
                        scales,
                        {0, nullptr}});
}

int64_t code_sums_workspace(int64_t num_rows, int64_t dim, int64_t num_codes) {
  return vqk::cuda::code_sums_workspace(num_rows, dim, num_codes);
}

void code_sums(void* x, int dtype, int num_dims, const int64_t* sizes, const int64_t* strides,
               int64_t dim, int64_t dim_stride, const int32_t* keys, const int64_t* order,
               const double* scales, int64_t num_codes, void* workspace, int64_t* counts,
               float* sums) {
  vqk::cuda::code_sums({rows(x, dtype, num_dims, sizes, strides, dim, dim_stride),
                        keys,
                        order,
                        scales,
                        num_codes,
                        workspace,
                        counts,
                        sums,
                        {0, nullptr}});
}

}  // extern "C"
