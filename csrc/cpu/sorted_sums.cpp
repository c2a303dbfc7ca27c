#include "sorted_sums.h"

#include <type_traits>

#include "code_order.h"
#include "convert.h"
#include "memory.h"
#include "parallel.h"
#include "row_runs.h"

namespace vqk::VQK_LEVEL {
namespace {

constexpr int64_t part_rows = 256;

int64_t part_count(int64_t places) { return (places + part_rows - 1) / part_rows; }

// The rows in code order: where each lies and what divides it.
struct SortedRows {
  const Rows* x;
  const Rows* minuend;
  bool contiguous;                  // every row is
  Buffer<int64_t> x_offsets;        // (M,)
  Buffer<int64_t> minuend_offsets;  // (M,) when there is a minuend
  Buffer<double> divisors;          // (M,) when there are divisors
  CodeOrder order;

  SortedRows(const SortedSums& args)
      : x(args.x),
        minuend(args.minuend),
        contiguous(x->dim_stride == 1 && (minuend == nullptr || minuend->dim_stride == 1)),
        order(args.codes, args.x->count, args.num_codes, args.threads) {
    x_offsets.resize(order.count);
    sort_offsets(*x, x_offsets.data(), args.threads);
    if (minuend != nullptr) {
      minuend_offsets.resize(order.count);
      sort_offsets(*minuend, minuend_offsets.data(), args.threads);
    }
    if (args.divisors == nullptr) return;
    divisors.resize(order.count);
    for (int64_t n = 0; n < x->count; ++n)
      if (order.places[n] >= 0) divisors[order.places[n]] = args.divisors[n];
  }

  void sort_offsets(const Rows& rows, int64_t* offsets, int threads) const {
    constexpr int64_t block = 131072;
    parallel_for((rows.count + block - 1) / block, threads, [&](int64_t b, int) {
      const int64_t first = b * block;
      const int64_t count = rows.count - first < block ? rows.count - first : block;
      for_each_run(rows, first, count,
                   [&](int64_t row, int64_t length, int64_t offset, int64_t stride) {
                     for (int64_t r = 0; r < length; ++r) {
                       const int64_t place = order.places[first + row + r];
                       if (place >= 0) offsets[place] = offset + r * stride;
                     }
                   });
    });
  }

  // The code at a place.
  int64_t code_at(int64_t place, int64_t num_codes) const {
    int64_t low = 0, high = num_codes;
    while (high - low > 1) {
      const int64_t middle = (low + high) / 2;
      (order.starts[middle] <= place ? low : high) = middle;
    }
    return low;
  }
};

// Adds places [begin, end), channels [first, last), to `sum`.
template <class Element, bool subtract, bool divide>
void add_places(const SortedRows& rows, int64_t begin, int64_t end, int64_t first, int64_t last,
                double* sum) {
  const auto* x = static_cast<const Element*>(rows.x->data);
  const int64_t x_step = rows.x->dim_stride;
  const float* minuend = subtract ? static_cast<const float*>(rows.minuend->data) : nullptr;
  const int64_t minuend_step = subtract ? rows.minuend->dim_stride : 0;
  for (int64_t i = first; i < last; ++i) sum[i] = 0.0;

  const auto term = [&](int64_t place, int64_t i, int64_t x_stride, int64_t minuend_stride) {
    double value = double(to_float(x[rows.x_offsets[place] + i * x_stride]));
    if constexpr (divide) value /= rows.divisors[place];
    if constexpr (subtract)
      return double(minuend[rows.minuend_offsets[place] + i * minuend_stride]) - value;
    else
      return value;
  };
  if (rows.contiguous) {
    for (int64_t place = begin; place < end; ++place)
      for (int64_t i = first; i < last; ++i) sum[i] += term(place, i, 1, 1);
  } else {
    for (int64_t i = first; i < last; ++i)
      for (int64_t place = begin; place < end; ++place)
        sum[i] += term(place, i, x_step, minuend_step);
  }
}

void add_places(const SortedRows& rows, int64_t begin, int64_t end, int64_t first, int64_t last,
                double* sum) {
  with_element_type(rows.x->dtype, [&](auto* type) {
    using Element = std::remove_pointer_t<decltype(type)>;
    const bool subtract = rows.minuend != nullptr, divide = rows.divisors.data() != nullptr;
    const auto add =
        subtract ? (divide ? add_places<Element, true, true> : add_places<Element, true, false>)
                 : (divide ? add_places<Element, false, true> : add_places<Element, false, false>);
    add(rows, begin, end, first, last, sum);
  });
}

// Sums of the runs that end inside their part go to `sums`; the others leave a partial: slot 0 for
// a run that began in an earlier part, slot 1 for one that begins here.
void sum_part(const SortedSums& args, const SortedRows& rows, int64_t part, int64_t first,
              int64_t last, double* sum, double* partials) {
  const int64_t dim = args.x->dim;
  const int64_t part_begin = part * part_rows;
  const int64_t part_end =
      part_begin + part_rows < rows.order.count ? part_begin + part_rows : rows.order.count;
  int64_t code = rows.code_at(part_begin, args.num_codes);
  for (int64_t begin = part_begin; begin < part_end; ++code) {
    const int64_t code_begin = rows.order.starts[code], code_end = rows.order.starts[code + 1];
    const int64_t end = code_end < part_end ? code_end : part_end;
    if (end <= begin) continue;
    if (code_begin >= part_begin && code_end <= part_end) {
      add_places(rows, begin, end, first, last, sum);
      for (int64_t i = first; i < last; ++i) args.sums[code * dim + i] = float(args.scale * sum[i]);
    } else {
      const int64_t slot = code_begin < part_begin ? 0 : 1;
      add_places(rows, begin, end, first, last, partials + (2 * part + slot) * dim);
    }
    begin = end;
  }
}

// The run that begins in `part` and ends in a later one, if there is one.
void combine_part(const SortedSums& args, const SortedRows& rows, int64_t part, double* sum,
                  const double* partials) {
  const int64_t dim = args.x->dim, part_end = (part + 1) * part_rows;
  if (part_end >= rows.order.count) return;
  const int64_t code = rows.code_at(part_end - 1, args.num_codes);
  const int64_t code_begin = rows.order.starts[code], code_end = rows.order.starts[code + 1];
  if (code_begin < part * part_rows || code_end <= part_end) return;
  for (int64_t i = 0; i < dim; ++i) sum[i] = partials[(2 * part + 1) * dim + i];
  for (int64_t p = part + 1; p * part_rows < code_end; ++p)
    for (int64_t i = 0; i < dim; ++i) sum[i] += partials[2 * p * dim + i];
  for (int64_t i = 0; i < dim; ++i) args.sums[code * dim + i] = float(args.scale * sum[i]);
}

void count_codes(const SortedSums& args, int64_t num_rows) {
  for (int64_t k = 0; k < args.num_codes; ++k) args.counts[k] = 0;
  for (int64_t n = 0; n < num_rows; ++n)
    if (args.codes[n] >= 0) ++args.counts[args.codes[n]];
}

}  // namespace

void sorted_sums(const SortedSums& args) {
  if (args.counts != nullptr) count_codes(args, args.x->count);
  if (args.sums == nullptr) return;
  const int64_t dim = args.x->dim;
  for (int64_t i = 0; i < args.num_codes * dim; ++i) args.sums[i] = 0.0f;

  const SortedRows rows(args);
  const int64_t parts = part_count(rows.order.count);
  const Buffer<double> partials(parts * 2 * dim);
  const Buffer<double> sums(args.threads * dim);
  // Rows that are contiguous are summed whole. Others channel by channel, so that a random order of
  // rows stays within one channel's plane of memory.
  const int64_t slices = rows.contiguous ? 1 : dim, width = rows.contiguous ? dim : 1;
  parallel_for(slices * parts, args.threads, [&](int64_t task, int worker) {
    const int64_t first = task / parts * width;
    sum_part(args, rows, task % parts, first, first + width, sums.data() + worker * dim,
             partials.data());
  });
  for (int64_t part = 0; part < parts; ++part)
    combine_part(args, rows, part, sums.data(), partials.data());
}

}  // namespace vqk::VQK_LEVEL
