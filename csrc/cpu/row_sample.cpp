#include "row_sample.h"

#include "row_tiles.h"

namespace vqk::VQK_LEVEL {
namespace {

constexpr int64_t most_rows = 64;
constexpr int64_t rows_of_call = 32;  // of every worker, for one of the sample

}  // namespace

RowSample::RowSample(const Rows& x, int threads) : count(x.count / (rows_of_call * threads)) {
  if (count > most_rows) count = most_rows;
  if (count == 0 && x.count > 0) count = 1;
  tile.resize(count * padded(x.dim));
  for (int64_t i = 0; i < count; ++i)
    load_rows(x, i * x.count / count, 1, tile.data() + i * padded(x.dim));
}

}  // namespace vqk::VQK_LEVEL
