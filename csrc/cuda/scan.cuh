#pragma once

#include "search.cuh"

namespace vqk::cuda {

// The two smallest scores seen, and the lowest code that has the smallest.
struct Smallest {
  float best;
  int32_t code;
  float second;
};

// NaN changes nothing.
__device__ __forceinline__ void see(Smallest& smallest, float score, int32_t code) {
  const bool better = score < smallest.best;
  smallest.second = fminf(smallest.second, better ? smallest.best : score);
  smallest.code = better ? code : smallest.code;
  smallest.best = better ? score : smallest.best;
}

__device__ __forceinline__ Smallest merged(const Smallest& a, const Smallest& b) {
  const bool takes_b = b.best < a.best || (b.best == a.best && b.code < a.code);
  return {fminf(a.best, b.best), takes_b ? b.code : a.code,
          fminf(fmaxf(a.best, b.best), fminf(a.second, b.second))};
}

// Block (row tile, part of the codes).
template <Metric metric>
__global__ void __launch_bounds__(score_threads, 2) scan(Search search) {
  __shared__ ScoreTile tile;
  const Pairs& pairs = search.pairs;
  const int64_t num_rows = pairs.x.count, first_row = int64_t(blockIdx.x) * tile_rows;
  const int row_lane = threadIdx.x / lanes_per_row, code_lane = threadIdx.x % lanes_per_row;
  if (threadIdx.x < tile_rows) {
    const int64_t row = first_row + threadIdx.x;
    tile.x_offsets[threadIdx.x] = row_offset(pairs.x, row < num_rows ? row : num_rows - 1);
  }
  // Read by later kernels only.
  if (blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0) *search.open_count = 0;

  Smallest smallest[per_thread];
#pragma unroll
  for (int r = 0; r < per_thread; ++r)
    smallest[r] = {__int_as_float(0x7f800000), 0, __int_as_float(0x7f800000)};

  // K is below 2^31: 32 bits hold the number of a code, and save registers.
  const int begin = int(blockIdx.y * search.scan.tiles);
  const int all = int(blocks_for(pairs.num_codes, tile_codes));
  const int end = begin + search.scan.tiles < all ? int(begin + search.scan.tiles) : all;
  for (int t = begin; t < end; ++t) {
    float score[per_thread][per_thread];
    score_tile<metric>(pairs, tile, t * tile_codes, t == begin, score);
#pragma unroll
    for (int k = 0; k < per_thread; ++k) {
      const int32_t code = t * tile_codes + tile_position(code_lane, k);
#pragma unroll
      for (int r = 0; r < per_thread; ++r) see(smallest[r], score[r][k], code);
    }
  }

#pragma unroll
  for (int r = 0; r < per_thread; ++r) {
#pragma unroll
    for (int distance = lanes_per_row / 2; distance > 0; distance /= 2) {
      const Smallest other = {__shfl_xor_sync(0xffffffffu, smallest[r].best, distance),
                              __shfl_xor_sync(0xffffffffu, smallest[r].code, distance),
                              __shfl_xor_sync(0xffffffffu, smallest[r].second, distance)};
      smallest[r] = merged(smallest[r], other);
    }
    const int64_t row = first_row + tile_position(row_lane, r);
    if (code_lane == 0 && row < num_rows) {
      const int64_t place = blockIdx.y * num_rows + row;
      search.best[place] = smallest[r].best;
      search.best_code[place] = smallest[r].code;
      search.second[place] = smallest[r].second;
    }
  }
}

}  // namespace vqk::cuda
