#pragma once

// A stand-in for the CUDA runtime that runs kernels on the CPU, for tests: what csrc/cuda uses of
// the language and nothing more. Every thread of a block is a fiber; `machine.cpp` runs the blocks
// one after another, and the fibers between two barriers, in random order. Pointers into "device"
// memory are pointers.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
// One block runs at a time. The section is filled with NaN before each.
#define __shared__ static __attribute__((section("shared_memory")))

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3() = default;
  dim3(unsigned x_, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

extern dim3 threadIdx, blockIdx, blockDim, gridDim;

// Waits until all threads of the block (or warp) have come here.
void wait_for_block();
void wait_for_warp();
// Where the lanes of this thread's warp leave 8 bytes for each other.
uint64_t* warp_slots();

inline void __syncthreads() { wait_for_block(); }

template <class Value>
Value __shfl_xor_sync(unsigned, Value value, int lane_mask) {
  const unsigned lane = threadIdx.x % 32;
  std::memcpy(&warp_slots()[lane], &value, sizeof value);
  wait_for_warp();
  Value other;
  std::memcpy(&other, &warp_slots()[lane ^ unsigned(lane_mask)], sizeof other);
  wait_for_warp();
  return other;
}

inline unsigned long long atomicAdd(unsigned long long* address, unsigned long long value) {
  const unsigned long long before = *address;
  *address += value;
  return before;
}

inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fmaf(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline int __ffsll(long long bits) { return __builtin_ffsll(bits); }

template <class To, class From>
To same_bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "same size");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}
inline uint32_t __float_as_uint(float value) { return same_bits<uint32_t>(value); }
inline float __uint_as_float(uint32_t bits) { return same_bits<float>(bits); }
inline float __int_as_float(int32_t bits) { return same_bits<float>(bits); }
inline double __longlong_as_double(long long bits) { return same_bits<double>(bits); }

inline float __double2float_ru(double value) {
  const float nearest = float(value);
  return double(nearest) < value ? std::nextafterf(nearest, std::numeric_limits<float>::infinity())
                                 : nearest;
}

using std::fmax;
using std::fmaxf;
using std::fminf;
using std::sqrt;

enum cudaError_t { cudaSuccess };
using cudaStream_t = struct Stream_*;
struct cudaFuncAttributes {};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};

inline const char* cudaGetErrorString(cudaError_t) { return "no error"; }
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, const void*) { return cudaSuccess; }

void run_grid(dim3 grid, dim3 block, const std::function<void()>& thread);

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               const Arguments&... arguments) {
  run_grid(config->gridDim, config->blockDim, [&] { kernel(arguments...); });
  return cudaSuccess;
}
