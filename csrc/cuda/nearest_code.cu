#include "vqk/cuda/nearest_code.h"

#include "decide.cuh"
#include "kernels.cuh"
#include "scan.cuh"
#include "settle.cuh"

namespace vqk::cuda {
namespace {

template <Metric metric>
void run(const Search& search, const Stream& stream) {
  const int64_t row_tiles = blocks_for(search.pairs.x.count, tile_rows);
  if (metric == Metric::cosine) launch(reach, {reach_blocks}, reach_threads, stream, search);
  launch(scan<metric>, {row_tiles, search.scan.splits}, score_threads, stream, search);
  launch(decide<metric>, {row_tiles}, tile_rows, stream, search);
  launch(settle<metric>, {settle_blocks}, score_threads, stream, search);
  launch(publish<metric>, {settle_blocks}, publish_threads, stream, search);
}

}  // namespace

int64_t nearest_code_workspace(int64_t num_rows, int64_t num_codes) {
  Search search;
  return lay_out(search, num_rows, num_codes, nullptr);
}

void nearest_code(const NearestCode& args) {
  if (args.x.count == 0) return;
  Search search;
  search.pairs = {args.x, args.codebook, args.num_codes};
  search.bound = bound_for(args.x.dim);
  search.indices = args.indices;
  search.distances = args.distances;
  lay_out(search, args.x.count, args.num_codes, args.workspace);
  select(args.stream);
  if (args.metric == Metric::l2)
    run<Metric::l2>(search, args.stream);
  else
    run<Metric::cosine>(search, args.stream);
}

cudaError_t load_nearest_code() {
  return load(reach, scan<Metric::l2>, scan<Metric::cosine>, decide<Metric::l2>,
              decide<Metric::cosine>, settle<Metric::l2>, settle<Metric::cosine>,
              publish<Metric::l2>, publish<Metric::cosine>);
}

}  // namespace vqk::cuda
