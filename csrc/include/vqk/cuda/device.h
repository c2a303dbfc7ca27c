#pragma once

#include <string>

namespace vqk::cuda {

// CUDA version that the extension was built with, as 1000 * major + 10 * minor.
int runtime_version();

// Why the kernels cannot run on a device, as what was found there; empty when they can. Loads them,
// so that a first launch inside a graph capture has nothing left to load.
std::string unusable(int device);

}  // namespace vqk::cuda
