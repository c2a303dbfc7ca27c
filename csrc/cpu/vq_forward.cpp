#include "vqk/vq_forward.h"

#include "double8.h"
#include "kernels.h"
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
  double* divisors;  // (N,) u = x / divisor
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

int64_t workspace_floats(const Search& search, int64_t dim) {
  const int64_t block = search.block_rows();
  return search.scratch_floats() + (2 * block * padded(dim) + 7 * block + 15) / 16 * 16;
}

Workspace lay_out(const Search& search, int64_t dim, float* memory) {
  const int64_t block = search.block_rows();
  Workspace w;
  w.scratch = memory;
  w.tile = memory + search.scratch_floats();
  w.quantized = w.tile + block * padded(dim);
  w.norms = reinterpret_cast<double*>(w.quantized + block * padded(dim));
  w.indices = reinterpret_cast<int64_t*>(w.norms + block);
  w.positions = w.indices + block;
  w.finite = reinterpret_cast<uint8_t*>(w.positions + block);
  return w;
}

void copy_row(const float* from, float* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = from[i];
}

// |x / divisor - q|^2. Eight lanes, combined in a fixed order.
double squared_error(const float* x, const float* q, double divisor, int64_t width) {
  Double8 sum{};
  for (int64_t i = 0; i < width; i += 8) {
    Double8 value = widen(x + i);
    if (divisor != 1.0) value = value / splat(divisor);
    const Double8 difference = value - widen(q + i);
    sum = sum + difference * difference;
  }
  return sum_lanes(sum);
}

// Moves unmasked rows to the front of the tile; masked ones go to their place in the output.
int64_t separate_masked(const VqForward& args, int64_t first, int64_t count,
                        const RowResults& results, const Workspace& w) {
  const int64_t width = padded(args.x.dim);
  int64_t kept = 0;
  for (int64_t r = 0; r < count; ++r) {
    if (args.mask == nullptr || args.mask[first + r] != 0) {
      if (kept != r) copy_row(w.tile + r * width, w.tile + kept * width, width);
      w.positions[kept++] = r;
      continue;
    }
    copy_row(w.tile + r * width, w.quantized + r * width, width);
    args.indices[first + r] = -1;
    results.codes[first + r] = -1;
    results.divisors[first + r] = 1.0;
    results.errors[first + r] = 0.0;
  }
  return kept;
}

void process_block(const VqForward& args, const Search& search, int64_t first, int64_t count,
                   const RowResults& results, const Workspace& w) {
  const int64_t dim = args.x.dim, width = padded(dim);
  load_rows(args.x, first, count, w.tile);
  const int64_t kept = separate_masked(args, first, count, results, w);
  search.assign(w.tile, kept, w.scratch, w.indices, nullptr, w.finite);
  if (args.metric == Metric::cosine) tile_norms(w.tile, kept, dim, w.norms);

  for (int64_t r = 0; r < kept; ++r) {
    const int64_t row = first + w.positions[r];
    float* quantized = w.quantized + w.positions[r] * width;
    const float* code = args.codebook + w.indices[r] * dim;
    for (int64_t i = 0; i < width; ++i)
      quantized[i] = i >= dim ? 0.0f : w.finite[r] ? code[i] : __builtin_nanf("");
    args.indices[row] = w.indices[r];
    results.codes[row] = w.finite[r] ? int32_t(w.indices[r]) : -1;
    results.divisors[row] = args.metric == Metric::cosine ? unit_divisor(w.norms[r]) : 1.0;
    results.errors[row] =
        squared_error(w.tile + r * width, quantized, results.divisors[row], width);
  }
  store_rows(args.quantized, first, count, w.quantized);
}

// Mean over unmasked elements, from partials of 256 rows.
float mean_error(const VqForward& args, const double* errors) {
  constexpr int64_t part_rows = 256;
  const int64_t num_rows = args.x.count;
  double total = 0.0;
  int64_t valid = 0;
  for (int64_t first = 0; first < num_rows; first += part_rows) {
    const int64_t end = num_rows - first < part_rows ? num_rows : first + part_rows;
    double partial = 0.0;
    for (int64_t n = first; n < end; ++n) {
      partial += errors[n];
      valid += args.mask == nullptr || args.mask[n] != 0;
    }
    total += partial;
  }
  return valid == 0 ? 0.0f : float(total / (double(valid) * double(args.x.dim)));
}

}  // namespace

void vq_forward(const VqForward& args) {
  const int64_t dim = args.x.dim, num_rows = args.x.count;
  const Buffer<int32_t> codes(num_rows);
  const Buffer<double> divisors(num_rows), errors(num_rows);
  const RowResults results{codes.data(), divisors.data(), errors.data()};
  if (num_rows > 0) {
    const Search search(args.codebook, args.num_codes, dim, args.metric, args.prepared, num_rows,
                        args.threads);
    const int64_t block = search.block_rows(), floats = workspace_floats(search, dim);
    const Buffer<float> memory(args.threads * floats);
    parallel_for((num_rows + block - 1) / block, args.threads, [&](int64_t b, int worker) {
      const int64_t first = b * block;
      const int64_t count = num_rows - first < block ? num_rows - first : block;
      process_block(args, search, first, count, results,
                    lay_out(search, dim, memory.data() + worker * floats));
    });
  }
  *args.mse = mean_error(args, results.errors);
  sorted_sums({results.codes, args.num_codes, &args.x,
               args.metric == Metric::cosine ? results.divisors : nullptr, nullptr, 1.0,
               args.counts, args.sums, args.threads});
}

}  // namespace vqk::VQK_LEVEL
