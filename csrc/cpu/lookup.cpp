#include "vqk/lookup.h"

#include "kernels.h"
#include "memory.h"
#include "parallel.h"
#include "row_tiles.h"

namespace vqk::VQK_LEVEL {

int64_t lookup(const Lookup& args) {
  const int64_t dim = args.out.dim, num_rows = args.out.count, width = padded(dim);
  for (int64_t n = 0; n < num_rows; ++n)
    if (args.indices[n] < -1 || args.indices[n] >= args.num_codes) return n;

  constexpr int64_t block = 64;
  const Buffer<float> tiles(args.threads * block * width);
  parallel_for((num_rows + block - 1) / block, args.threads, [&](int64_t b, int worker) {
    float* tile = tiles.data() + worker * block * width;
    const int64_t first = b * block;
    const int64_t count = num_rows - first < block ? num_rows - first : block;
    for (int64_t r = 0; r < count; ++r) {
      const int64_t index = args.indices[first + r];
      const float* code = args.codebook + index * dim;
      for (int64_t i = 0; i < dim; ++i) tile[r * width + i] = index < 0 ? 0.0f : code[i];
    }
    store_rows(args.out, first, count, tile);
  });
  return -1;
}

}  // namespace vqk::VQK_LEVEL
