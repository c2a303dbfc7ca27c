#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "bound.cuh"
#include "launch.cuh"
#include "score_tile.cuh"
#include "workspace.cuh"

// What the kernels of one search share. `scan` scores all pairs in float32 and keeps two scores per
// row; `decide` finishes the rows that these settle and lists the others; `settle` scores those
// once more, against a limit, and evaluates F for what stays below it; `publish` writes them.
namespace vqk::cuda {

constexpr int scan_blocks = 1024;    // with fewer rows, blocks share the codes among them
constexpr int least_code_tiles = 4;  // per block, to be worth reading the rows for
constexpr int settle_blocks = 512;
constexpr int reach_blocks = 32;

// How the codes are shared out: `splits` parts of `tiles` code tiles.
struct Split {
  int64_t splits;
  int64_t tiles;
};

__host__ __device__ inline Split split_codes(int64_t num_codes, int64_t wanted) {
  const int64_t tiles = (num_codes + tile_codes - 1) / tile_codes;
  if (wanted < 1) wanted = 1;
  const int64_t per_split = (tiles + wanted - 1) / wanted;
  return {(tiles + per_split - 1) / per_split, per_split};
}

// The best F of a row among some codes, signed so that the smallest wins.
struct Found {
  double score;  // infinite: no code
  int32_t code;
};

struct Search {
  Pairs pairs;
  Bound bound;
  Split scan;

  // (splits, N) of the scan. `second` is the second smallest score of the part.
  float* best;
  int32_t* best_code;
  float* second;

  float* reach;  // (reach_blocks,) upper bounds of |c| in parts of the finite codes; cosine only

  // Rows that the scan leaves open.
  unsigned long long* open_count;
  int64_t* open_rows;  // (N,) in any order
  float* limits;       // (N,) score_limit of each
  Found* settled;      // (splits of settle, open_count)

  int64_t* indices;
  float* distances;
};

// Lays a search out in a workspace, and returns the bytes it takes.
inline int64_t lay_out(Search& search, int64_t num_rows, int64_t num_codes, void* workspace) {
  const int64_t row_tiles = blocks_for(num_rows, tile_rows);
  const int64_t most = blocks_for(num_codes, int64_t(tile_codes) * least_code_tiles);
  const int64_t wanted = row_tiles == 0 ? 1 : scan_blocks / row_tiles;
  search.scan = split_codes(num_codes, wanted < most ? wanted : most);

  Carver carver(workspace);
  search.best = carver.take<float>(search.scan.splits * num_rows);
  search.best_code = carver.take<int32_t>(search.scan.splits * num_rows);
  search.second = carver.take<float>(search.scan.splits * num_rows);
  search.reach = carver.take<float>(reach_blocks);
  search.open_count = carver.take<unsigned long long>(1);
  search.open_rows = carver.take<int64_t>(num_rows);
  search.limits = carver.take<float>(num_rows);
  // Either several splits of at most settle_blocks tiles, or one.
  const int64_t parts = int64_t(settle_blocks) * tile_rows;
  search.settled = carver.take<Found>(num_rows > parts ? num_rows : parts);
  return carver.bytes();
}

// F of a row and a code: float64, the channel ascending, every operation rounded by itself.
template <Metric metric>
__device__ inline double add_term(double sum, float x, float c) {
  if (metric == Metric::l2) {
    const double difference = __dsub_rn(double(x), double(c));
    return __dadd_rn(sum, __dmul_rn(difference, difference));
  }
  return __dadd_rn(sum, __dmul_rn(double(x), double(c)));
}

template <Metric metric>
__device__ inline double signed_score(double sum) {
  return metric == Metric::l2 ? sum : -sum;
}

__device__ inline void write_result(const Search& search, int64_t row, int64_t code,
                                    double distance) {
  search.indices[row] = code;
  if (search.distances != nullptr) search.distances[row] = float(distance);
}

}  // namespace vqk::cuda
