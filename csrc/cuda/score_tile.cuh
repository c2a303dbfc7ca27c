#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "row_tile.cuh"
#include "vqk/metric.h"

// Float32 scores of tile_rows rows with tile_codes codes, 8 by 8 per thread in registers.
namespace vqk::cuda {

constexpr int tile_codes = tile_rows;
constexpr int score_threads = 256;
constexpr int lanes_per_row = 16;  // neighbouring threads with the same rows
constexpr int per_thread = 8;

// Row (or code) `j` of a thread's eight: two float4 apart by half a tile, which reads shared memory
// without bank conflicts. Ascends with j.
__device__ inline int tile_position(int lane, int j) { return 4 * lane + (j & 3) + 64 * (j >> 2); }

struct Pairs {
  Rows x;                 // (N, D)
  const float* codebook;  // (K, D)
  int64_t num_codes;      // K
};

struct ScoreTile {
  Tile x;
  Tile codes;
  int64_t x_offsets[tile_rows];
};

// NaN for what must not win: codes that are not finite, or not there.
__device__ inline float usable(float value, bool there) {
  return there && is_finite(value) ? value : __int_as_float(0x7fffffff);
}

// One channel at a time: with more of them in flight the accumulators would spill.
template <Metric metric>
__device__ __forceinline__ void score_channels(const ScoreTile& tile, int channels, int row_lane,
                                               int code_lane,
                                               float (&score)[per_thread][per_thread]) {
#pragma unroll 1
  for (int i = 0; i < channels; ++i) {
    float x[per_thread], c[per_thread];
#pragma unroll
    for (int j = 0; j < per_thread; ++j) {
      x[j] = tile.x[i][tile_position(row_lane, j)];
      c[j] = tile.codes[i][tile_position(code_lane, j)];
    }
#pragma unroll
    for (int r = 0; r < per_thread; ++r)
#pragma unroll
      for (int k = 0; k < per_thread; ++k) {
        if (metric == Metric::l2) {
          const float difference = __fsub_rn(x[r], c[k]);
          score[r][k] = __fmaf_rn(difference, difference, score[r][k]);
        } else {
          score[r][k] = __fmaf_rn(-x[r], c[k], score[r][k]);
        }
      }
  }
}

// score[r][k]: the smallest is the best; NaN for a code that is not finite or not there. A barrier
// for the block. `load_x` is false when the tile already holds these rows' only channels.
template <Metric metric>
__device__ __forceinline__ void score_tile(const Pairs& pairs, ScoreTile& tile, int first_code,
                                           bool load_x, float (&score)[per_thread][per_thread]) {
  const int dim = int(pairs.x.dim);
  const int row_lane = threadIdx.x / lanes_per_row, code_lane = threadIdx.x % lanes_per_row;
#pragma unroll
  for (int r = 0; r < per_thread; ++r)
#pragma unroll
    for (int k = 0; k < per_thread; ++k) score[r][k] = 0.0f;

  for (int first = 0; first < dim; first += tile_dims) {
    __syncthreads();  // everyone has read the last channels
    if (load_x || dim > tile_dims) fill_rows<score_threads>(tile.x, first, pairs.x, tile.x_offsets);
    const int last_code = int(pairs.num_codes - 1) - first_code;
    fill_tile<score_threads>(tile.codes, first, dim, true, [&](int code, int i) {
      const int64_t k = first_code + (code < last_code ? code : last_code);
      return usable(pairs.codebook[k * dim + i], code <= last_code);
    });
    __syncthreads();
    const int channels = dim - first < tile_dims ? dim - first : tile_dims;
    score_channels<metric>(tile, channels, row_lane, code_lane, score);
  }
}

}  // namespace vqk::cuda
