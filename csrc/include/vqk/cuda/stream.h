#pragma once

namespace vqk::cuda {

// Where an op is launched. Nothing waits for it.
struct Stream {
  int device;
  void* handle;  // a cudaStream_t of that device; null is its default stream
};

}  // namespace vqk::cuda
