#include "vqk/observe.h"

#include "kernels.h"
#include "parallel.h"

namespace vqk::VQK_LEVEL {

void observe(const Observe& args) {
  int64_t counted = 0;
  for (int64_t k = 0; k < args.num_codes; ++k) {
    counted += args.counts[k];
    args.pending_counts[k] += float(args.counts[k]);
  }
  *args.pending_steps += counted > 0;
  if (args.pending_rows != nullptr && *args.found > 0)
    for (int64_t i = 0; i < args.num_rows * args.dim; ++i) args.pending_rows[i] = args.rows[i];
  if (args.pending_sums == nullptr) return;

  constexpr int64_t block = 1 << 16;
  const int64_t size = args.num_codes * args.dim;
  parallel_for((size + block - 1) / block, args.threads, [&](int64_t b, int) {
    const int64_t end = size - b * block < block ? size : (b + 1) * block;
    for (int64_t i = b * block; i < end; ++i) args.pending_sums[i] += args.sums[i];
  });
}

}  // namespace vqk::VQK_LEVEL
