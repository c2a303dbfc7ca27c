#include "vqk/code_sums.h"

#include "kernels.h"
#include "memory.h"
#include "row_norms.h"
#include "sorted_sums.h"

namespace vqk::VQK_LEVEL {
int64_t code_sums(const CodeSums& args) {
  const int64_t num_rows = args.x.count;
  const Buffer<int32_t> codes(num_rows);
  for (int64_t n = 0; n < num_rows; ++n) {
    const int64_t index = args.indices[n];
    if (index < -1 || index >= args.num_codes) return n;
    codes[n] = args.mask != nullptr && args.mask[n] == 0 ? -1 : int32_t(index);
  }
  const bool measure = args.unit || args.skip_nonfinite;
  const Buffer<double> norms(measure ? num_rows : 0);
  if (measure) row_norms(args.x, norms.data(), args.threads);
  for (int64_t n = 0; measure && n < num_rows; ++n) {
    if (args.skip_nonfinite && !(norms[n] < __builtin_inf())) codes[n] = -1;
    norms[n] = unit_divisor(norms[n]);
  }
  sorted_sums({codes.data(), args.num_codes, &args.x, args.unit ? norms.data() : nullptr, nullptr,
               1.0, args.counts, args.sums, args.threads});
  return -1;
}

}  // namespace vqk::VQK_LEVEL
