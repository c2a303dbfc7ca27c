#include "vqk/cuda/device.h"

#include <stdexcept>

#include "kernels.cuh"
#include "launch.cuh"

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

int runtime_version() { return CUDART_VERSION; }

std::string unusable(int device) {
  int count = 0, major = 0, minor = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) return refused(cudaGetErrorString(error));
  if (device < 0 || device >= count) return refused("no device " + std::to_string(device));
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  try {
    select({device, nullptr});
    load_nearest_code();
    load_code_sums();
  } catch (const std::runtime_error& refusal) {
    cudaGetLastError();  // so that nobody else finds this error
    return refused("sm_" + std::to_string(major) + std::to_string(minor) + ": " + refusal.what());
  }
  return "";
}

}  // namespace vqk::cuda
