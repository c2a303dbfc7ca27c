#include "channel_runs.h"
#include "kernels.h"
#include "memory.h"
#include "parallel.h"
#include "scalar_bound.h"
#include "vqk/fsq.h"

namespace vqk::VQK_LEVEL {
namespace {

constexpr int64_t block_rows = 512;

// What is left of an index when the digits so far are taken off. In float64 an index of 32 bits is
// divided exactly, and many at a time; the division of 64-bit integers is the slow one.
template <class Integer>
struct Block {
  alignas(64) Integer rest[block_rows];
  alignas(64) int32_t digit[block_rows];
  alignas(64) float code[block_rows];

  VQK_INLINE void take_digits(int32_t levels) {
    for (int64_t r = 0; r < block_rows; ++r) {
      Integer next;
      if constexpr (sizeof(Integer) == 4)
        next = Integer(double(rest[r]) / double(levels));
      else
        next = rest[r] / levels;
      digit[r] = int32_t(rest[r] - next * levels);
      rest[r] = next;
    }
  }
};

template <class Integer>
void look_up(const FsqLookup& args) {
  const int64_t num_rows = args.out.count;
  const Buffer<Block<Integer>> memory(args.threads);
  parallel_for((num_rows + block_rows - 1) / block_rows, args.threads, [&](int64_t n, int worker) {
    Block<Integer>& b = memory[worker];
    const int64_t first = n * block_rows;
    const int64_t count = num_rows - first < block_rows ? num_rows - first : block_rows;
    const int64_t* indices = args.indices + first;
    for (int64_t r = 0; r < block_rows; ++r)
      b.rest[r] = r < count && indices[r] > 0 ? Integer(indices[r]) : 0;
    for (int64_t i = 0; i < args.out.dim; ++i) {
      b.take_digits(args.scalars.levels[i]);
      for (int64_t r = 0; r < block_rows; ++r) b.code[r] = code_of(args.scalars, i, b.digit[r]);
      for (int64_t r = 0; r < count; ++r) b.code[r] = indices[r] < 0 ? 0.0f : b.code[r];
      store_channel(b.code, first, count, i, args.out);
    }
  });
}

}  // namespace

int64_t fsq_lookup(const FsqLookup& args) {
  for (int64_t n = 0; n < args.out.count; ++n)
    if (args.indices[n] < -1 || args.indices[n] >= args.num_codes) return n;
  if (args.num_codes <= INT32_MAX)
    look_up<int32_t>(args);
  else
    look_up<int64_t>(args);
  return -1;
}

}  // namespace vqk::VQK_LEVEL
