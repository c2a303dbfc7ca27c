#include "sorted_sums.h"

#include <type_traits>

#include "code_order.h"
#include "double8.h"
#include "memory.h"
#include "parallel.h"
#include "row_tiles.h"
#include "transpose.h"

namespace vqk::VQK_LEVEL {
namespace {

constexpr int64_t part_rows = 256;

// Channels [first_channel, first_channel + x.dim) of the rows to add, contiguous along them.
struct Addends {
  const SortedSums& args;
  const CodeOrder& order;
  Rows x;
  Rows minuend;  // read when args.minuend is set
  int64_t first_channel;
  double* partials;  // (parts, 2, x.dim) of the runs that a part does not hold whole: slot 0 for
                     // one that began in an earlier part, slot 1 for one that ends in a later part

  float* sums(int64_t code) const { return args.sums + code * args.x->dim + first_channel; }
  double* partial(int64_t part, int64_t slot) const { return partials + (2 * part + slot) * x.dim; }

  // The code at a place.
  int64_t code_at(int64_t place) const {
    int64_t low = 0, high = args.num_codes;
    while (high - low > 1) {
      const int64_t middle = (low + high) / 2;
      (order.starts[middle] <= place ? low : high) = middle;
    }
    return low;
  }
};

int64_t offset_of(const Rows& rows, int64_t row) {
  if (rows.num_dims == 1) return row * rows.strides[0];
  int64_t offset = 0;
  for (int i = rows.num_dims - 1; i >= 0; --i) {
    offset += row % rows.sizes[i] * rows.strides[i];
    row /= rows.sizes[i];
  }
  return offset;
}

// What the places of one part add.
template <class Element, bool subtract, bool divide>
struct Terms {
  const Element* x[part_rows];
  const float* minuend[part_rows];
  double divisors[part_rows];

  Terms(const Addends& from, int64_t begin, int64_t end) {
    for (int64_t t = 0; t < end - begin; ++t) {
      const int64_t row = from.order.rows[begin + t];
      x[t] = static_cast<const Element*>(from.x.data) + offset_of(from.x, row);
      // The rows of a run lie anywhere; all of them are wanted soon.
      __builtin_prefetch(x[t]);
      if constexpr (subtract)
        minuend[t] = static_cast<const float*>(from.minuend.data) + offset_of(from.minuend, row);
      if constexpr (divide) divisors[t] = from.args.divisors[row];
    }
  }

  VQK_INLINE Double8 eight(int64_t t, int64_t i) const {
    alignas(32) float values[8];
    store8(load8(x[t] + i), values);
    Double8 value = widen(values);
    if constexpr (divide) value = value / splat(divisors[t]);
    if constexpr (subtract) {
      store8(load8(minuend[t] + i), values);
      value = widen(values) - value;
    }
    return value;
  }

  VQK_INLINE double one(int64_t t, int64_t i) const {
    double value = double(to_float(x[t][i]));
    if constexpr (divide) value /= divisors[t];
    if constexpr (subtract) value = double(minuend[t][i]) - value;
    return value;
  }

  // Adds terms [begin, end) to nothing, in order: the same sum for any number of lanes.
  void add(int64_t begin, int64_t end, int64_t dim, double* sum) const {
    int64_t i = 0;
    for (; i + 32 <= dim; i += 32) add_groups<4>(begin, end, i, sum);
    for (; i + 8 <= dim; i += 8) add_groups<1>(begin, end, i, sum);
    for (; i < dim; ++i) {
      double total = 0.0;
      for (int64_t t = begin; t < end; ++t) total += one(t, i);
      sum[i] = total;
    }
  }

  template <int groups>
  VQK_INLINE void add_groups(int64_t begin, int64_t end, int64_t i, double* sum) const {
    Double8 total[groups] = {};
    for (int64_t t = begin; t < end; ++t)
      for (int g = 0; g < groups; ++g) total[g] = total[g] + eight(t, i + 8 * g);
    for (int g = 0; g < groups; ++g) __builtin_memcpy(sum + i + 8 * g, &total[g], sizeof total[g]);
  }
};

void write_sum(const Addends& from, int64_t code, const double* sum) {
  float* out = from.sums(code);
  for (int64_t i = 0; i < from.x.dim; ++i) out[i] = float(from.args.scale * sum[i]);
}

void write_zeros(const Addends& from, int64_t code) {
  float* out = from.sums(code);
  for (int64_t i = 0; i < from.x.dim; ++i) out[i] = 0.0f;
}

// One part of the places: writes the sums of the runs that it holds whole, the partials of the
// others, and the zeros of the empty codes from its first run to the first run of the next part.
template <class Element, bool subtract, bool divide>
void sum_part(const Addends& from, int64_t part, double* sum) {
  const CodeOrder& order = from.order;
  const int64_t part_begin = part * part_rows;
  const bool last = part_begin + part_rows >= order.count;
  const int64_t part_end = last ? order.count : part_begin + part_rows;
  const Terms<Element, subtract, divide> terms(from, part_begin, part_end);
  const int64_t end_code = last ? from.args.num_codes : from.code_at(part_end) + 1;
  for (int64_t code = part == 0 ? 0 : from.code_at(part_begin); code < end_code; ++code) {
    const int64_t code_begin = order.starts[code], code_end = order.starts[code + 1];
    const int64_t begin = (code_begin > part_begin ? code_begin : part_begin) - part_begin;
    const int64_t end = (code_end < part_end ? code_end : part_end) - part_begin;
    if (code_begin == code_end) {
      write_zeros(from, code);
    } else if (begin < end) {
      const bool whole = code_begin >= part_begin && code_end <= part_end;
      double* to = whole ? sum : from.partial(part, code_begin < part_begin ? 0 : 1);
      terms.add(begin, end, from.x.dim, to);
      if (whole) write_sum(from, code, sum);
    }
  }
}

// The run that begins in `part` and ends in a later one, if there is one.
void combine_part(const Addends& from, int64_t part, double* sum) {
  const int64_t dim = from.x.dim, part_end = (part + 1) * part_rows;
  if (part_end >= from.order.count) return;
  const int64_t code = from.code_at(part_end - 1);
  const int64_t code_begin = from.order.starts[code], code_end = from.order.starts[code + 1];
  if (code_begin < part * part_rows || code_end <= part_end) return;
  for (int64_t i = 0; i < dim; ++i) sum[i] = from.partial(part, 1)[i];
  for (int64_t p = part + 1; p * part_rows < code_end; ++p)
    for (int64_t i = 0; i < dim; ++i) sum[i] += from.partial(p, 0)[i];
  write_sum(from, code, sum);
}

void add_channels(const Addends& from) {
  const int64_t dim = from.x.dim, parts = (from.order.count + part_rows - 1) / part_rows;
  const int threads = from.args.threads;
  if (parts == 0)
    for (int64_t k = 0; k < from.args.num_codes; ++k) write_zeros(from, k);
  const Buffer<double> sums(threads * dim);
  with_element_type(from.x.dtype, [&](auto* type) {
    using Element = std::remove_pointer_t<decltype(type)>;
    const bool subtract = from.args.minuend != nullptr, divide = from.args.divisors != nullptr;
    const auto sum =
        subtract ? (divide ? sum_part<Element, true, true> : sum_part<Element, true, false>)
                 : (divide ? sum_part<Element, false, true> : sum_part<Element, false, false>);
    parallel_for(parts, threads,
                 [&](int64_t part, int worker) { sum(from, part, sums.data() + worker * dim); });
  });
  for (int64_t part = 0; part < parts; ++part) combine_part(from, part, sums.data());
}

// Channels [first, first + dim) of all rows, copied to `memory`, (N, padded(dim)).
Rows packed(const Rows& rows, int64_t first, int64_t dim, float* memory, int threads) {
  Rows from = rows;
  from.dim = dim;
  with_element_type(rows.dtype, [&](auto* type) {
    from.data = static_cast<decltype(type)>(rows.data) + first * rows.dim_stride;
  });
  const int64_t width = padded(dim);
  constexpr int64_t block = 1024;
  parallel_for((rows.count + block - 1) / block, threads, [&](int64_t b, int) {
    const int64_t begin = b * block;
    const int64_t count = rows.count - begin < block ? rows.count - begin : block;
    load_rows(from, begin, count, memory + begin * width);
  });
  return {memory, Dtype::float32, 1, {rows.count}, {width}, rows.count, dim, 1};
}

// Rows whose channels lie apart: a random order of them would touch a cache line per element. Some
// channels at a time are copied to where they are neighbours, as many as stay in the cache.
void add_packed_channels(const SortedSums& args, const CodeOrder& order, double* partials) {
  constexpr int64_t cached_floats = 1 << 18, least_width = 16;
  const int64_t num_rows = args.x->count, dim = args.x->dim;
  int64_t width = num_rows == 0 ? dim : cached_floats / num_rows / least_width * least_width;
  if (width < least_width) width = least_width;
  if (width > dim) width = dim;
  const int64_t floats = num_rows * padded(width);
  const Buffer<float> memory((args.minuend == nullptr ? 1 : 2) * floats);
  for (int64_t first = 0; first < dim; first += width) {
    const int64_t count = dim - first < width ? dim - first : width;
    Addends from{args, order, {}, {}, first, partials};
    from.x = packed(*args.x, first, count, memory.data(), args.threads);
    if (args.minuend != nullptr)
      from.minuend = packed(*args.minuend, first, count, memory.data() + floats, args.threads);
    add_channels(from);
  }
}

void count_codes(const SortedSums& args) {
  if (args.counts == nullptr) return;
  for (int64_t k = 0; k < args.num_codes; ++k) args.counts[k] = 0;
  for (int64_t n = 0; n < args.x->count; ++n)
    if (args.codes[n] >= 0) ++args.counts[args.codes[n]];
}

}  // namespace

void sorted_sums(const SortedSums& args) {
  if (args.sums == nullptr) return count_codes(args);
  const CodeOrder order(args.codes, args.x->count, args.num_codes, args.threads);
  if (args.counts != nullptr)
    for (int64_t k = 0; k < args.num_codes; ++k)
      args.counts[k] = order.starts[k + 1] - order.starts[k];

  const int64_t parts = (order.count + part_rows - 1) / part_rows;
  const Buffer<double> partials(parts * 2 * args.x->dim);
  const Rows* minuend = args.minuend;
  if (args.x->dim_stride != 1 || (minuend != nullptr && minuend->dim_stride != 1))
    return add_packed_channels(args, order, partials.data());
  add_channels({args, order, *args.x, minuend == nullptr ? Rows{} : *minuend, 0, partials.data()});
}

}  // namespace vqk::VQK_LEVEL
