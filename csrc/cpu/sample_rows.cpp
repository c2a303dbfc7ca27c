#include "vqk/sample_rows.h"

#include <algorithm>
#include <cmath>

#include "convert.h"
#include "memory.h"

namespace vqk {
namespace {

// ops/_hash.py: "lowbias32", keyed by seed and clock.
uint32_t mix(uint32_t value) {
  value = (value ^ (value >> 16)) * 0x7feb352du;
  value = (value ^ (value >> 15)) * 0x846ca68bu;
  return value ^ (value >> 16);
}

struct Hash {
  uint32_t key;
  Hash(int64_t seed, int64_t clock) : key(mix(mix(uint32_t(seed)) + uint32_t(clock))) {}
  uint32_t operator()(int64_t counter) const { return mix(key + uint32_t(counter)); }
};

int64_t count_valid(const SampleRows& args) {
  if (args.mask == nullptr) return args.x.count;
  int64_t valid = 0;
  for (int64_t n = 0; n < args.x.count; ++n) valid += args.mask[n] != 0;
  return valid;
}

// Turns ascending numbers among the valid positions into positions.
void skip_masked(const SampleRows& args, int64_t count, int64_t* positions) {
  if (args.mask == nullptr) return;
  int64_t valid = 0, slot = 0;
  for (int64_t n = 0; n < args.x.count && slot < count; ++n) {
    if (args.mask[n] == 0) continue;
    if (positions[slot] == valid) positions[slot++] = n;
    ++valid;
  }
}

// The position that each slot draws. With fewer valid positions than slots each is taken once, and
// the slots after them repeat.
void draw(const SampleRows& args, int64_t valid, int64_t* positions) {
  const Hash hash(args.seed, *args.clock);
  const int64_t distinct = valid < args.count ? valid : args.count;
  for (int64_t slot = 0; slot < distinct; ++slot) {
    if (valid < args.count) {
      positions[slot] = slot;
      continue;
    }
    const int64_t low = slot * valid / args.count, high = (slot + 1) * valid / args.count;
    positions[slot] = low + hash(slot) % (high > low ? high - low : 1);
  }
  skip_masked(args, distinct, positions);
  for (int64_t slot = distinct; slot < args.count; ++slot)
    positions[slot] = distinct == 0 ? args.x.count - 1 : positions[slot % distinct];
}

int64_t offset_of(const Rows& rows, int64_t row) {
  int64_t offset = 0;
  for (int i = rows.num_dims - 1; i >= 0; --i) {
    offset += row % rows.sizes[i] * rows.strides[i];
    row /= rows.sizes[i];
  }
  return offset;
}

void read_row(const Rows& rows, int64_t row, float* out) {
  with_element_type(rows.dtype, [&](auto* type) {
    const auto* from = static_cast<decltype(type)>(rows.data) + offset_of(rows, row);
    for (int64_t i = 0; i < rows.dim; ++i) out[i] = to_float(from[i * rows.dim_stride]);
  });
}

bool is_finite(const float* row, int64_t dim) {
  return std::all_of(row, row + dim, [](float value) { return std::isfinite(value); });
}

}  // namespace

void sample_rows(const SampleRows& args) {
  const int64_t count = args.count, dim = args.x.dim, valid = count_valid(args);
  const Buffer<int64_t> positions(count);
  draw(args, valid, positions.data());

  // Sorted by (unusable, hash, slot), packed into one word: 1, 32 and 31 bits.
  const Hash hash(args.seed + 1, *args.clock);
  const Buffer<uint64_t> order(count);
  int64_t found = 0;
  for (int64_t slot = 0; slot < count; ++slot) {
    read_row(args.x, positions[slot], args.rows);
    const bool usable = slot < valid && is_finite(args.rows, dim);
    found += usable;
    order[slot] = uint64_t(!usable) << 63 | uint64_t(hash(slot)) << 31 | uint64_t(slot);
  }
  std::sort(order.data(), order.data() + count);
  for (int64_t slot = 0; slot < count; ++slot) {
    const uint64_t chosen = order[found == 0 ? 0 : slot % found] & 0x7fffffff;
    read_row(args.x, positions[chosen], args.rows + slot * dim);
  }
  *args.found = found;
}

}  // namespace vqk
