#include "vqk/cuda/device.h"

#include <cuda_runtime.h>

#include "kernels.cuh"

namespace vqk::cuda {
namespace {

std::string version(int number) {
  return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10);
}

// What is there, beside what it would have to be.
std::string refused(const std::string& reason) {
  int driver = 0;
  cudaDriverGetVersion(&driver);
  const std::string has = driver == 0 ? "no driver" : "a driver for CUDA " + version(driver);
  return reason + " (" + has + ", built with CUDA " + version(CUDART_VERSION) + ")";
}

}  // namespace

std::string unusable(int device) {
  int count = 0, major = 0, minor = 0;
  cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess) error = cudaSetDevice(device);
  if (error != cudaSuccess) return refused(cudaGetErrorString(error));
  error = load_nearest_code();
  if (error == cudaSuccess) error = load_code_sums();
  if (error == cudaSuccess) return "";
  cudaGetLastError();  // so that nobody else finds this error
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  return refused("sm_" + std::to_string(major) + std::to_string(minor) + ": " +
                 cudaGetErrorString(error));
}

}  // namespace vqk::cuda
