#include "vqk/nearest_code.h"

#include "cell_choice.h"
#include "kernels.h"
#include "memory.h"
#include "parallel.h"
#include "row_tiles.h"
#include "search.h"

namespace vqk::VQK_LEVEL {

void nearest_code(const NearestCode& args) {
  const int64_t dim = args.x.dim, num_rows = args.x.count;
  if (num_rows == 0) return;
  const RowSample sample(args.x, args.threads);
  const Search search(args.codebook, args.num_codes, dim, args.metric, args.prepared, num_rows,
                      sample, args.threads);
  const int64_t block = search.block_rows();
  const int64_t tile_floats = block * padded(dim);
  const int64_t scratch_floats = search.scratch_floats();
  const int64_t worker_floats = (tile_floats + 15) / 16 * 16 + scratch_floats;
  const Buffer<float> memory(args.threads * worker_floats);

  parallel_for((num_rows + block - 1) / block, args.threads, [&](int64_t b, int worker) {
    float* scratch = memory.data() + worker * worker_floats;
    const int64_t first = b * block;
    const int64_t count = num_rows - first < block ? num_rows - first : block;
    const float* tile = as_tile(args.x, first, count, scratch + scratch_floats);
    search.assign(tile, count, scratch, args.indices + first,
                  args.distances == nullptr ? nullptr : args.distances + first, nullptr);
  });
}

double visited_share(const NearestCode& args) {
  if (args.x.count == 0) return -1.0;
  const int64_t dim = args.x.dim;
  const OpenedBlock block(args.prepared, args.codebook, args.num_codes, dim, args.metric,
                          args.threads);
  const RowSample sample(args.x, args.threads);
  const CellChoice choice(args.codebook, args.num_codes, dim, block, args.x.count, sample, false,
                          args.threads);
  return choice.search() != nullptr ? double(choice.share()) : -1.0;
}

}  // namespace vqk::VQK_LEVEL
