#include "residual_sums.h"

#include "memory.h"
#include "parallel.h"
#include "row_tiles.h"
#include "sorted_sums.h"

namespace vqk::VQK_LEVEL {
namespace {

// Residuals of one level to those of the next.
void subtract_codes(const Residual& args, const int32_t* codes, const float* codebook,
                    float* residuals) {
  constexpr int64_t block = 256;
  const int64_t dim = args.x.dim, width = padded(dim), num_rows = args.x.count;
  parallel_for((num_rows + block - 1) / block, args.threads, [&](int64_t b, int) {
    const int64_t end = num_rows - b * block < block ? num_rows : (b + 1) * block;
    for (int64_t n = b * block; n < end; ++n) {
      if (codes[n] < 0) continue;
      const float* code = codebook + codes[n] * dim;
      for (int64_t i = 0; i < dim; ++i) residuals[n * width + i] -= code[i];
    }
  });
}

bool has_nonfinite(const Residual& args, const LevelRows& rows, int64_t level) {
  for (int64_t n = 0; n < args.x.count; ++n)
    if (rows.levels[n] <= level && args.indices[n * args.levels + level] >= 0) return true;
  return false;
}

}  // namespace

void residual_sums(const Residual& args, const LevelRows& rows) {
  const int64_t dim = args.x.dim, num_rows = args.x.count, size = args.num_codes * dim;
  const Buffer<int32_t> codes(num_rows);
  const Rows residuals{rows.residuals, Dtype::float32, 1,   {num_rows},
                       {padded(dim)},  num_rows,       dim, 1};
  const auto sum = [&](int64_t* counts, float* sums) {
    sorted_sums({codes.data(), args.num_codes, &residuals, nullptr, nullptr, 1.0, counts, sums,
                 args.threads});
  };
  for (int64_t level = 0; level < args.levels; ++level) {
    for (int64_t n = 0; n < num_rows; ++n)
      codes[n] = level < rows.levels[n] ? int32_t(args.indices[n * args.levels + level]) : -1;
    sum(args.counts + level * args.num_codes,
        args.sums == nullptr ? nullptr : args.sums + level * size);
    const bool last = level == args.levels - 1;
    if (rows.residuals == nullptr || (last && args.code_remainders == nullptr)) continue;
    subtract_codes(args, codes.data(), args.codebooks + (args.shared ? 0 : level * size),
                   rows.residuals);
    if (args.code_remainders == nullptr) continue;
    float* remainders = args.code_remainders + level * size;
    sum(nullptr, remainders);
    if (has_nonfinite(args, rows, level))
      for (int64_t i = 0; i < dim; ++i) remainders[i] = __builtin_nanf("");
  }
}

}  // namespace vqk::VQK_LEVEL
