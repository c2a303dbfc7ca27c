#include "row_norms.h"

#include "memory.h"
#include "parallel.h"
#include "row_tiles.h"

namespace vqk::VQK_LEVEL {

void tile_norms(const float* tile, int64_t count, int64_t dim, double* norms) {
  const int64_t width = padded(dim);
  // Eight rows at a time: one row alone waits for the latency of its additions.
  for (int64_t first = 0; first < count; first += 8) {
    const float* rows[8];
    double sums[8] = {};
    for (int64_t r = 0; r < 8; ++r)
      rows[r] = tile + (first + r < count ? first + r : count - 1) * width;
    for (int64_t i = 0; i < dim; ++i)
      for (int64_t r = 0; r < 8; ++r) sums[r] += double(rows[r][i]) * double(rows[r][i]);
    for (int64_t r = 0; r < 8 && first + r < count; ++r) norms[first + r] = __builtin_sqrt(sums[r]);
  }
}

void row_norms(const Rows& rows, double* norms, int threads) {
  constexpr int64_t block = 64;
  const Buffer<float> tiles(threads * block * padded(rows.dim));
  parallel_for((rows.count + block - 1) / block, threads, [&](int64_t b, int worker) {
    float* tile = tiles.data() + worker * block * padded(rows.dim);
    const int64_t first = b * block;
    const int64_t count = rows.count - first < block ? rows.count - first : block;
    tile_norms(as_tile(rows, first, count, tile), count, rows.dim, norms + first);
  });
}

}  // namespace vqk::VQK_LEVEL
