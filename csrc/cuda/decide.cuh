#pragma once

#include "search.cuh"

namespace vqk::cuda {

constexpr int reach_threads = 256;

// reach[b]: at least the norm of every finite code among b, b + blocks, ...; one warp per code.
__global__ void __launch_bounds__(reach_threads) reach(Search search) {
  __shared__ double largest[reach_threads / 32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t dim = search.pairs.x.dim, step = int64_t(gridDim.x) * (reach_threads / 32);
  double reached = 0.0;
  for (int64_t k = blockIdx.x + int64_t(warp) * gridDim.x; k < search.pairs.num_codes; k += step) {
    double sum = 0.0;
    for (int64_t i = lane; i < dim; i += 32) {
      const double value = double(search.pairs.codebook[k * dim + i]);
      sum = __dadd_rn(sum, __dmul_rn(value, value));
    }
    for (int distance = 16; distance > 0; distance /= 2)
      sum = __dadd_rn(sum, __shfl_xor_sync(0xffffffffu, sum, distance));
    // A code that is not finite has no finite sum.
    if (sum < __longlong_as_double(0x7ff0000000000000)) reached = fmax(reached, sum);
  }
  if (lane == 0) largest[warp] = reached;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int w = 1; w < reach_threads / 32; ++w) reached = fmax(reached, largest[w]);
    // Covers the roundings of the sum and the root.
    search.reach[blockIdx.x] = __double2float_ru(sqrt(reached) * (1.0 + 0x1p-20));
  }
}

// A thread per row: F of the best code where nothing else can win, else a place in the list.
template <Metric metric>
__global__ void __launch_bounds__(tile_rows) decide(Search search) {
  __shared__ Tile x, codes;
  __shared__ int64_t x_offsets[tile_rows], code_offsets[tile_rows];
  const Pairs& pairs = search.pairs;
  const int dim = int(pairs.x.dim);
  const int64_t num_rows = pairs.x.count;
  const int r = threadIdx.x;
  const int64_t wanted = int64_t(blockIdx.x) * tile_rows + r;
  const int64_t row = wanted < num_rows ? wanted : num_rows - 1;

  float best = search.best[row], second = search.second[row];
  int32_t code = search.best_code[row];
  for (int64_t split = 1; split < search.scan.splits; ++split) {
    const int64_t place = split * num_rows + row;
    const float other = search.best[place];
    second = fminf(fmaxf(best, other), fminf(second, search.second[place]));
    code = other < best ? search.best_code[place] : code;
    best = fminf(best, other);
  }
  x_offsets[r] = row_offset(pairs.x, row);
  code_offsets[r] = int64_t(code) * dim;

  double sum = 0.0, square = 0.0;
  bool finite = true;
  for (int first = 0; first < dim; first += tile_dims) {
    __syncthreads();
    fill_rows<tile_rows>(x, first, pairs.x, x_offsets);
    fill_tile<tile_rows>(codes, first, dim, true,
                         [&](int t, int i) { return pairs.codebook[code_offsets[t] + i]; });
    __syncthreads();
    const int channels = dim - first < tile_dims ? dim - first : tile_dims;
    for (int i = 0; i < channels; ++i) {
      const double value = double(x[i][r]);
      sum = add_term<metric>(sum, x[i][r], codes[i][r]);
      square = __dadd_rn(square, __dmul_rn(value, value));
      finite = finite && is_finite(x[i][r]);
    }
  }
  if (wanted >= num_rows) return;

  double size = 0.0;
  if (metric == Metric::cosine) {
    float longest = 0.0f;
    for (int b = 0; b < reach_blocks; ++b) longest = fmaxf(longest, search.reach[b]);
    size = sqrt(square) * (1.0 + 0x1p-20) * double(longest);
  }
  const float limit = score_limit<metric>(search.bound, best, size);
  const bool none = best == __int_as_float(0x7f800000);
  // The scores of a zero row are all zero without rounding: the lowest code was kept.
  const bool zero = metric == Metric::cosine && square == 0.0 && !none;
  // Without overflow a finite code has a finite score.
  const bool lost = !finite || (metric == Metric::cosine && none && size < score_overflows);
  if (lost) {
    write_result(search, row, 0, __longlong_as_double(0x7ff8000000000000));
  } else if (second > limit || zero) {
    write_result(search, row, code, sum);
  } else {
    const unsigned long long place = atomicAdd(search.open_count, 1ull);
    search.open_rows[place] = row;
    search.limits[place] = limit;
  }
}

}  // namespace vqk::cuda
