#pragma once

#include <string>

namespace vqk::cuda {

// Why the kernels cannot run on a device, as what was found there; empty when they can. Loads them,
// so that a first launch inside a graph capture has nothing left to load; selects the device.
std::string unusable(int device);

}  // namespace vqk::cuda
