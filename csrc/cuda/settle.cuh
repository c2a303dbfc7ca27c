#pragma once

#include "search.cuh"

namespace vqk::cuda {

__host__ __device__ inline Split settle_split(int64_t open, int64_t num_codes) {
  const int64_t row_tiles = (open + tile_rows - 1) / tile_rows;
  return split_codes(num_codes, row_tiles == 0 ? 1 : settle_blocks / row_tiles);
}

struct SettleTile {
  ScoreTile scores;
  int64_t rows[tile_rows];
  float limits[tile_rows];
  double found_score[tile_rows][lanes_per_row];  // of the one thread that sees these pairs
  int32_t found_code[tile_rows][lanes_per_row];
};

// Codes with the same values have the same F, and the lower one has been seen.
__device__ inline bool same_code(const Pairs& pairs, int64_t a, int64_t b) {
  const int64_t dim = pairs.x.dim;
  for (int64_t i = 0; i < dim; ++i)
    if (pairs.codebook[a * dim + i] != pairs.codebook[b * dim + i]) return false;
  return true;
}

template <Metric metric>
__device__ inline void evaluate(const Pairs& pairs, SettleTile& tile, int row, int lane,
                                int64_t code) {
  double& best = tile.found_score[row][lane];
  if (metric == Metric::l2 && best == 0.0) return;
  const bool found = best < __longlong_as_double(0x7ff0000000000000);
  if (found && same_code(pairs, tile.found_code[row][lane], code)) return;
  double sum = 0.0;
  for (int64_t i = 0; i < pairs.x.dim; ++i)
    sum = add_term<metric>(
        sum, load_element(pairs.x, tile.scores.x_offsets[row] + i * pairs.x.dim_stride),
        pairs.codebook[code * pairs.x.dim + i]);
  const double score = signed_score<metric>(sum);
  if (score < best) {
    best = score;
    tile.found_code[row][lane] = int32_t(code);
  }
}

template <Metric metric>
__device__ inline void settle_tile(const Search& search, SettleTile& tile, int64_t open,
                                   int64_t first_slot, int64_t begin, int64_t end, Found* settled) {
  const Pairs& pairs = search.pairs;
  const int row_lane = threadIdx.x / lanes_per_row, code_lane = threadIdx.x % lanes_per_row;
  __syncthreads();  // everyone has read what the last rows left
  if (threadIdx.x < tile_rows) {
    const int64_t slot = first_slot + threadIdx.x;
    const int64_t place = slot < open ? slot : open - 1;
    tile.scores.x_offsets[threadIdx.x] = row_offset(pairs.x, search.open_rows[place]);
    tile.limits[threadIdx.x] = search.limits[place];
  }
  for (int r = 0; r < per_thread; ++r)
    tile.found_score[tile_position(row_lane, r)][code_lane] =
        __longlong_as_double(0x7ff0000000000000);

  for (int64_t first_code = begin; first_code < end; first_code += tile_codes) {
    float score[per_thread][per_thread];
    score_tile<metric>(pairs, tile.scores, int(first_code), first_code == begin, score);
    uint64_t possible = 0;
#pragma unroll
    for (int r = 0; r < per_thread; ++r) {
      const float limit = tile.limits[tile_position(row_lane, r)];
#pragma unroll
      for (int k = 0; k < per_thread; ++k) {
        // NaN is a code that is not finite, or for cosine an overflow.
        const bool kept = metric == Metric::l2 ? score[r][k] <= limit : !(score[r][k] > limit);
        possible |= uint64_t(kept) << (r * per_thread + k);
      }
    }
    for (; possible != 0; possible &= possible - 1) {
      const int bit = __ffsll((long long)possible) - 1;
      const int64_t code = first_code + tile_position(code_lane, bit % per_thread);
      if (code < pairs.num_codes)
        evaluate<metric>(pairs, tile, tile_position(row_lane, bit / per_thread), code_lane, code);
    }
  }

  __syncthreads();
  const int r = threadIdx.x;
  if (r >= tile_rows || first_slot + r >= open) return;
  Found best = {__longlong_as_double(0x7ff0000000000000), 0};
  for (int lane = 0; lane < lanes_per_row; ++lane) {
    const Found other = {tile.found_score[r][lane], tile.found_code[r][lane]};
    if (other.score < best.score || (other.score == best.score && other.code < best.code))
      best = other;
  }
  settled[first_slot + r] = best;
}

// Takes (tile of open rows, part of the codes) one after the other.
template <Metric metric>
__global__ void __launch_bounds__(score_threads, 1) settle(Search search) {
  __shared__ SettleTile tile;
  const int64_t open = int64_t(*search.open_count), num_codes = search.pairs.num_codes;
  const int64_t row_tiles = (open + tile_rows - 1) / tile_rows;
  const Split parts = settle_split(open, num_codes);
  for (int64_t item = blockIdx.x; item < row_tiles * parts.splits; item += gridDim.x) {
    const int64_t split = item / row_tiles, first_slot = item % row_tiles * tile_rows;
    const int64_t begin = split * parts.tiles * tile_codes;
    const int64_t part_end = begin + parts.tiles * tile_codes;
    settle_tile<metric>(search, tile, open, first_slot, begin,
                        part_end < num_codes ? part_end : num_codes, search.settled + split * open);
  }
}

constexpr int publish_threads = 128;

// A thread per open row.
template <Metric metric>
__global__ void __launch_bounds__(publish_threads) publish(Search search) {
  const int64_t open = int64_t(*search.open_count), step = int64_t(gridDim.x) * blockDim.x;
  const int64_t splits = settle_split(open, search.pairs.num_codes).splits;
  for (int64_t slot = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; slot < open; slot += step) {
    Found best = search.settled[slot];
    for (int64_t split = 1; split < splits; ++split) {
      const Found other = search.settled[split * open + slot];
      if (other.score < best.score) best = other;
    }
    const bool none = !(best.score < __longlong_as_double(0x7ff0000000000000));
    write_result(
        search, search.open_rows[slot], none ? 0 : best.code,
        none ? __longlong_as_double(0x7ff8000000000000) : signed_score<metric>(best.score));
  }
}

}  // namespace vqk::cuda
