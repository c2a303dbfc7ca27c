#pragma once

// Per file of kernels, a function that loads them all; it throws where that cannot be done.
namespace vqk::cuda {

void load_nearest_code();
void load_code_sums();

}  // namespace vqk::cuda
