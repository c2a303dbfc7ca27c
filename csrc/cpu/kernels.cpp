#include "kernels.h"

namespace vqk::VQK_LEVEL {

const Kernels kernels = {nearest_code, lookup, code_sums, vq_forward, vq_backward, fma_peak};

}  // namespace vqk::VQK_LEVEL
