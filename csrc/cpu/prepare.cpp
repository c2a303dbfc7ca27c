#include "vqk/prepare.h"

#include "kernels.h"
#include "packed_codebook.h"

namespace vqk::VQK_LEVEL {

int64_t prepared_bytes(int64_t num_codes, int64_t dim) {
  return PackedCodebook(num_codes, dim, Metric::l2, nullptr).bytes_kept;
}

void prepare(const Prepare& args) {
  PackedCodebook(args.num_codes, args.dim, args.metric, args.out)
      .pack(args.codebook, true, args.threads);
}

}  // namespace vqk::VQK_LEVEL
