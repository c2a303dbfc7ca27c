#include "code_order.h"

#include "parallel.h"

namespace vqk::VQK_LEVEL {

CodeOrder::CodeOrder(const int32_t* codes, int64_t num_rows, int64_t num_codes, int threads)
    : starts(num_codes + 1), rows(num_rows) {
  // A counting sort whose parts count on their own, where there is enough to count.
  constexpr int64_t least_part_rows = 8192;
  int64_t parts = num_rows / (num_codes > least_part_rows ? num_codes : least_part_rows);
  if (parts > threads) parts = threads;
  if (parts < 1) parts = 1;
  const Buffer<int64_t> next(parts * num_codes);
  const auto first_row = [&](int64_t part) { return num_rows * part / parts; };

  parallel_for(parts, threads, [&](int64_t part, int) {
    int64_t* counts = next.data() + part * num_codes;
    for (int64_t k = 0; k < num_codes; ++k) counts[k] = 0;
    for (int64_t n = first_row(part); n < first_row(part + 1); ++n)
      if (codes[n] >= 0) ++counts[codes[n]];
  });

  count = 0;
  for (int64_t k = 0; k < num_codes; ++k) {
    starts[k] = count;
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t part_count = next[part * num_codes + k];
      next[part * num_codes + k] = count;
      count += part_count;
    }
  }
  starts[num_codes] = count;

  parallel_for(parts, threads, [&](int64_t part, int) {
    int64_t* place = next.data() + part * num_codes;
    for (int64_t n = first_row(part); n < first_row(part + 1); ++n)
      if (codes[n] >= 0) rows[place[codes[n]]++] = n;
  });
}

CodeOrder::~CodeOrder() = default;

}  // namespace vqk::VQK_LEVEL
