#include "vqk/vq_forward.h"

#include "double8.h"
#include "kernels.h"
#include "masked_rows.h"
#include "mean_error.h"
#include "memory.h"
#include "parallel.h"
#include "row_norms.h"
#include "row_tiles.h"
#include "search.h"
#include "sorted_sums.h"

namespace vqk::VQK_LEVEL {
namespace {

// What one pass over the rows leaves for the sums.
struct RowResults {
  int32_t* codes;    // (N,) code that the row counts for, -1 for none
  double* divisors;  // (N,) u = x / divisor; null for l2, where u = x
  double* errors;    // (N,) |u - q|^2, 0 when masked
};

// One worker's memory.
struct Workspace {
  float* scratch;      // for Search::assign
  float* tile;         // (block, padded(D)) the unmasked rows, packed to the front
  float* quantized;    // (block, padded(D))
  double* norms;       // (block,)
  int64_t* indices;    // (block,) of the unmasked rows
  int64_t* positions;  // (block,) where in the block each unmasked row stands
  uint8_t* finite;     // (block,)
};

// Rows per block where nothing is searched.
constexpr int64_t gathered_rows = 64;

int64_t block_rows(const Search* search) {
  return search != nullptr ? search->block_rows() : gathered_rows;
}

int64_t scratch_floats(const Search* search) {
  return search != nullptr ? search->scratch_floats() : 0;
}

int64_t workspace_floats(const Search* search, int64_t dim) {
  const int64_t block = block_rows(search);
  return scratch_floats(search) + (2 * block * padded(dim) + 7 * block + 15) / 16 * 16;
}

Workspace lay_out(const Search* search, int64_t dim, float* memory) {
  const int64_t block = block_rows(search);
  Workspace w;
  w.scratch = memory;
  w.tile = memory + scratch_floats(search);
  w.quantized = w.tile + block * padded(dim);
  w.norms = reinterpret_cast<double*>(w.quantized + block * padded(dim));
  w.indices = reinterpret_cast<int64_t*>(w.norms + block);
  w.positions = w.indices + block;
  w.finite = reinterpret_cast<uint8_t*>(w.positions + block);
  return w;
}

// Writes the code to `q`, (padded(D),), or NaN where the row is not finite, and returns
// |x / divisor - q|^2. Eight lanes, combined in a fixed order.
template <bool divide>
double quantize_row(const float* x, const float* code, bool finite, double divisor, int64_t dim,
                    float* q) {
  Double8 sum{};
  for (int64_t i = 0; i < dim; i += 8) {
    alignas(32) float values[8] = {};
    if (i + 8 <= dim)
      __builtin_memcpy(values, code + i, sizeof values);
    else
      for (int64_t j = i; j < dim; ++j) values[j - i] = code[j];
    if (!finite)
      for (int64_t j = i; j < i + 8; ++j) values[j - i] = j < dim ? __builtin_nanf("") : 0.0f;
    __builtin_memcpy(q + i, values, sizeof values);
    Double8 value = widen(x + i);
    if constexpr (divide) value = value / splat(divisor);
    const Double8 difference = value - widen(values);
    sum = sum + difference * difference;
  }
  return sum_lanes(sum);
}

// Writes codes and finiteness, and norms where they are needed, of the rows of `tile`.
void assign_rows(const VqForward& args, const Search* search, int64_t first, const float* tile,
                 int64_t kept, const Workspace& w) {
  const int64_t dim = args.x.dim;
  if (search != nullptr) search->assign(tile, kept, w.scratch, w.indices, nullptr, w.finite);
  if (search == nullptr || args.metric == Metric::cosine) tile_norms(tile, kept, dim, w.norms);
  if (search != nullptr) return;
  for (int64_t r = 0; r < kept; ++r) {
    w.indices[r] = args.given[first + (args.mask != nullptr ? w.positions[r] : r)];
    w.finite[r] = w.norms[r] < __builtin_inf();
  }
}

void process_block(const VqForward& args, const Search* search, int64_t first, int64_t count,
                   const RowResults& results, const Workspace& w) {
  const int64_t dim = args.x.dim, width = padded(dim);
  const bool masked = args.mask != nullptr, unit = results.divisors != nullptr;
  float* in_place = tile_in_place(args.quantized, first);
  float* quantized = in_place == nullptr ? w.quantized : in_place;
  const float* tile = w.tile;
  int64_t kept = count;
  if (masked) {
    load_rows(args.x, first, count, w.tile);
    const uint8_t* mask = args.mask + first;
    kept = separate_masked(mask, count, width, w.tile, quantized, w.positions);
    for (int64_t r = 0; r < count; ++r) {
      if (mask[r] != 0) continue;
      args.indices[first + r] = -1;
      results.codes[first + r] = -1;
      results.errors[first + r] = 0.0;
    }
  } else {
    tile = as_tile(args.x, first, count, w.tile);
  }
  assign_rows(args, search, first, tile, kept, w);

  for (int64_t r = 0; r < kept; ++r) {
    const int64_t position = masked ? w.positions[r] : r, row = first + position;
    const bool finite = w.finite[r] != 0;
    const float *x = tile + r * width, *code = args.codebook + w.indices[r] * dim;
    float* q = quantized + position * width;
    args.indices[row] = w.indices[r];
    results.codes[row] = finite ? int32_t(w.indices[r]) : -1;
    if (unit) {
      results.divisors[row] = unit_divisor(w.norms[r]);
      results.errors[row] = quantize_row<true>(x, code, finite, results.divisors[row], dim, q);
    } else {
      results.errors[row] = quantize_row<false>(x, code, finite, 1.0, dim, q);
    }
  }
  if (in_place == nullptr) store_rows(args.quantized, first, count, quantized);
}

void process_rows(const VqForward& args, const Search* search, const RowResults& results) {
  const int64_t dim = args.x.dim, num_rows = args.x.count;
  const int64_t block = block_rows(search), floats = workspace_floats(search, dim);
  const Buffer<float> memory(args.threads * floats);
  parallel_for((num_rows + block - 1) / block, args.threads, [&](int64_t b, int worker) {
    const int64_t first = b * block;
    const int64_t count = num_rows - first < block ? num_rows - first : block;
    process_block(args, search, first, count, results,
                  lay_out(search, dim, memory.data() + worker * floats));
  });
}

}  // namespace

void vq_forward(const VqForward& args) {
  const int64_t dim = args.x.dim, num_rows = args.x.count;
  const Buffer<int32_t> codes(num_rows);
  const bool unit = args.metric == Metric::cosine;
  const Buffer<double> divisors(unit ? num_rows : 0), errors(num_rows);
  const RowResults results{codes.data(), unit ? divisors.data() : nullptr, errors.data()};
  if (num_rows > 0 && args.given != nullptr) {
    process_rows(args, nullptr, results);
  } else if (num_rows > 0) {
    const RowSample sample(args.x, args.threads);
    const Search search(args.codebook, args.num_codes, dim, args.metric, args.prepared, num_rows,
                        sample, args.threads);
    process_rows(args, &search, results);
  }
  *args.mse = mean_error(results.errors, args.mask, num_rows, dim);
  sorted_sums({results.codes, args.num_codes, &args.x, results.divisors, nullptr, 1.0, args.counts,
               args.sums, args.threads});
}

}  // namespace vqk::VQK_LEVEL
