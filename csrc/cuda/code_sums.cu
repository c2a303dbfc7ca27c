#include "vqk/cuda/code_sums.h"

#include "kernels.cuh"
#include "launch.cuh"
#include "row_tile.cuh"
#include "workspace.cuh"

namespace vqk::cuda {
namespace {

constexpr int sum_threads = 128;
constexpr int window = 256;  // positions

// Shorter rows have no direction: u = x / max(|x|, smallest_norm).
constexpr double smallest_norm = 1e-12;

// A thread per row.
__global__ void __launch_bounds__(tile_rows) keys_of_rows(CodeKeys args) {
  __shared__ Tile x;
  __shared__ int64_t offsets[tile_rows];
  const int r = threadIdx.x, dim = int(args.x.dim);
  const int64_t row = int64_t(blockIdx.x) * tile_rows + r;
  const bool here = row < args.x.count;
  bool counts = here && args.indices[row] >= 0 && args.indices[row] < args.num_codes;
  if (args.mask != nullptr) counts = counts && args.mask[row] != 0;
  if (args.skip_nonfinite || args.scales != nullptr) {
    offsets[r] = row_offset(args.x, here ? row : args.x.count - 1);
    double square = 0.0;
    bool finite = true;
    for (int first = 0; first < dim; first += tile_dims) {
      __syncthreads();
      fill_rows<tile_rows>(x, first, args.x, offsets);
      __syncthreads();
      const int channels = dim - first < tile_dims ? dim - first : tile_dims;
      for (int i = 0; i < channels; ++i) {
        const double value = double(x[i][r]);
        square = __dadd_rn(square, __dmul_rn(value, value));
        finite = finite && is_finite(x[i][r]);
      }
    }
    counts = counts && (finite || !args.skip_nonfinite);
    if (here && args.scales != nullptr) {
      const double norm = sqrt(square);
      args.scales[row] = 1.0 / (norm < smallest_norm ? smallest_norm : norm);
    }
  }
  if (here) args.keys[row] = int32_t(counts ? args.indices[row] : args.num_codes);
}

// The first position of a key that is not below `key`.
__device__ int64_t lower_bound(const int32_t* keys, int64_t count, int64_t key) {
  int64_t low = 0, high = count;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (keys[middle] < key)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

struct Runs {
  CodeSums args;
  int64_t* offsets;  // (N,) row_offset of the row at each position
  int64_t* starts;   // (K + 1,) of each code's run; the last one ends the counted rows
  double* partials;  // (N / window, D) sums of the windows that lie inside one run
};

int64_t lay_out(Runs& runs, int64_t num_rows, int64_t dim, int64_t num_codes, void* workspace) {
  Carver carver(workspace);
  runs.offsets = carver.take<int64_t>(num_rows);
  runs.starts = carver.take<int64_t>(num_codes + 1);
  runs.partials = carver.take<double>(num_rows / window * dim);
  return carver.bytes();
}

// A thread per position. Once here, since every channel needs it and it may divide.
__global__ void __launch_bounds__(sum_threads) find_rows(Runs runs) {
  const int64_t position = int64_t(blockIdx.x) * sum_threads + threadIdx.x;
  if (position < runs.args.x.count)
    runs.offsets[position] = row_offset(runs.args.x, runs.args.order[position]);
}

// A thread per code, and one more.
__global__ void __launch_bounds__(sum_threads) find_runs(Runs runs) {
  const int64_t code = int64_t(blockIdx.x) * sum_threads + threadIdx.x;
  if (code <= runs.args.num_codes)
    runs.starts[code] = lower_bound(runs.args.keys, runs.args.x.count, code);
}

// sum plus channel i of the rows at positions [begin, end), in order.
template <class Element>
__device__ double add_rows(const Runs& runs, int64_t begin, int64_t end, int64_t i, double sum) {
  const CodeSums& args = runs.args;
  const Element* data = static_cast<const Element*>(args.x.data) + i * args.x.dim_stride;
#pragma unroll 4
  for (int64_t position = begin; position < end; ++position) {
    double value = double(to_float(data[runs.offsets[position]]));
    if (args.scales != nullptr) value = __dmul_rn(value, args.scales[args.order[position]]);
    sum = __dadd_rn(sum, value);
  }
  return sum;
}

// A thread per window and channel.
template <class Element>
__global__ void __launch_bounds__(sum_threads) sum_windows(Runs runs) {
  const CodeSums& args = runs.args;
  const int64_t dim = args.x.dim, place = int64_t(blockIdx.x) * sum_threads + threadIdx.x;
  const int64_t w = place / dim, begin = w * window, end = begin + window;
  if (end > args.x.count) return;
  const int32_t code = args.keys[begin];
  if (code != args.keys[end - 1] || code >= args.num_codes) return;
  runs.partials[place] = add_rows<Element>(runs, begin, end, place - w * dim, 0.0);
}

// A thread per code and channel.
template <class Element>
__global__ void __launch_bounds__(sum_threads) sum_codes(Runs runs) {
  const CodeSums& args = runs.args;
  const int64_t dim = args.x.dim, place = int64_t(blockIdx.x) * sum_threads + threadIdx.x;
  const int64_t code = place / dim, i = place - code * dim;
  if (code >= args.num_codes) return;
  const int64_t begin = runs.starts[code], end = runs.starts[code + 1];
  const int64_t first_window = (begin + window - 1) / window, end_window = end / window;
  const bool windows = first_window < end_window;
  double sum = add_rows<Element>(runs, begin, windows ? first_window * window : end, i, 0.0);
  if (windows) {
#pragma unroll 8
    for (int64_t w = first_window; w < end_window; ++w)
      sum = __dadd_rn(sum, runs.partials[w * dim + i]);
    sum = add_rows<Element>(runs, end_window * window, end, i, sum);
  }
  args.sums[place] = float(sum);
  if (i == 0) args.counts[code] = end - begin;
}

template <class Element>
void run(const Runs& runs) {
  const CodeSums& args = runs.args;
  const int64_t dim = args.x.dim, windows = args.x.count / window;
  if (args.x.count > 0)
    launch(find_rows, {blocks_for(args.x.count, sum_threads)}, sum_threads, args.stream, runs);
  launch(find_runs, {blocks_for(args.num_codes + 1, sum_threads)}, sum_threads, args.stream, runs);
  if (windows > 0)
    launch(sum_windows<Element>, {blocks_for(windows * dim, sum_threads)}, sum_threads, args.stream,
           runs);
  launch(sum_codes<Element>, {blocks_for(args.num_codes * dim, sum_threads)}, sum_threads,
         args.stream, runs);
}

}  // namespace

void code_keys(const CodeKeys& args) {
  if (args.x.count == 0) return;
  select(args.stream);
  launch(keys_of_rows, {blocks_for(args.x.count, tile_rows)}, tile_rows, args.stream, args);
}

int64_t code_sums_workspace(int64_t num_rows, int64_t dim, int64_t num_codes) {
  Runs runs;
  return lay_out(runs, num_rows, dim, num_codes, nullptr);
}

void code_sums(const CodeSums& args) {
  Runs runs;
  runs.args = args;
  lay_out(runs, args.x.count, args.x.dim, args.num_codes, args.workspace);
  select(args.stream);
  switch (args.x.dtype) {
    case Dtype::float32:
      return run<float>(runs);
    case Dtype::float16:
      return run<Half>(runs);
    case Dtype::bfloat16:
      return run<BFloat16>(runs);
  }
}

cudaError_t load_code_sums() {
  return load(keys_of_rows, find_rows, find_runs, sum_windows<float>, sum_windows<Half>,
              sum_windows<BFloat16>, sum_codes<float>, sum_codes<Half>, sum_codes<BFloat16>);
}

}  // namespace vqk::cuda
