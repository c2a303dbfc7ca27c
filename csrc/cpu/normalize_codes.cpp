#include "vqk/normalize_codes.h"

#include "kernels.h"
#include "memory.h"
#include "parallel.h"
#include "row_norms.h"
#include "row_tiles.h"

namespace vqk::VQK_LEVEL {

void normalize_codes(const NormalizeCodes& args) {
  constexpr int64_t block = 64;
  const int64_t dim = args.codebook.dim, width = padded(dim), num_codes = args.codebook.count;
  const Buffer<float> tiles(args.threads * block * width);
  parallel_for((num_codes + block - 1) / block, args.threads, [&](int64_t b, int worker) {
    float* tile = tiles.data() + worker * block * width;
    const int64_t first = b * block;
    const int64_t count = num_codes - first < block ? num_codes - first : block;
    load_rows(args.codebook, first, count, tile);
    tile_norms(tile, count, dim, args.norms + first);
    for (int64_t k = 0; k < count; ++k) {
      const double norm = args.norms[first + k], divisor = norm == 0.0 ? 1.0 : norm;
      float* out = args.unit + (first + k) * dim;
      for (int64_t i = 0; i < dim; ++i) out[i] = float(double(tile[k * width + i]) / divisor);
    }
  });
}

}  // namespace vqk::VQK_LEVEL
