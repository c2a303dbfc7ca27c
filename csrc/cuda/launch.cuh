#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>

#include "vqk/cuda/stream.h"

namespace vqk::cuda {

inline void check(cudaError_t error) {
  if (error != cudaSuccess)
    throw std::runtime_error(std::string("a CUDA call must succeed, got ") +
                             cudaGetErrorString(error));
}

// The device is selected in this copy of the runtime; the caller's copy keeps its own choice.
inline void select(const Stream& stream) { check(cudaSetDevice(stream.device)); }

struct Grid {
  int64_t x;
  int64_t y = 1;
};

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), Grid grid, int threads, const Stream& stream,
            const Arguments&... arguments) {
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(unsigned(grid.x), unsigned(grid.y));
  config.blockDim = dim3(unsigned(threads));
  config.stream = static_cast<cudaStream_t>(stream.handle);
  check(cudaLaunchKernelEx(&config, kernel, arguments...));
}

// Loads kernels; the first error of any.
template <class... Kernels>
cudaError_t load(Kernels*... kernels) {
  cudaFuncAttributes attributes;
  cudaError_t first = cudaSuccess;
  for (const void* kernel : {reinterpret_cast<const void*>(kernels)...}) {
    const cudaError_t error = cudaFuncGetAttributes(&attributes, kernel);
    if (first == cudaSuccess) first = error;
  }
  return first;
}

__host__ __device__ constexpr int64_t blocks_for(int64_t work, int64_t per_block) {
  return (work + per_block - 1) / per_block;
}

}  // namespace vqk::cuda
