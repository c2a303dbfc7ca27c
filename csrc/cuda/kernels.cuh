#pragma once

#include <cuda_runtime.h>

// Per file of kernels, a function that loads them all.
namespace vqk::cuda {

cudaError_t load_nearest_code();
cudaError_t load_code_sums();

}  // namespace vqk::cuda
