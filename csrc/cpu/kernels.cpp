#include "kernels.h"

namespace vqk::VQK_LEVEL {

const Kernels kernels = {nearest_code,
                         nearest_codes,
                         visited_share,
                         prepared_bytes,
                         prepare,
                         partition_bytes,
                         partition,
                         suitable_cells,
                         is_worn,
                         lookup,
                         code_sums,
                         vq_forward,
                         vq_backward,
                         normalize_codes,
                         observe,
                         advance,
                         fma_peak,
                         residual,
                         residual_backward,
                         soft_assign,
                         soft_assign_backward,
                         sample_codes,
                         fsq,
                         fsq_backward,
                         fsq_lookup};

}  // namespace vqk::VQK_LEVEL
