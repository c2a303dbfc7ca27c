#include "distinct_codes.h"

#include <cstring>
#include <vector>

namespace vqk {
namespace {

uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

bool is_finite(const float* code, int64_t dim) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < dim; ++i) {
    const uint32_t magnitude = bits_of(code[i]) & 0x7fffffffu;
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest < 0x7f800000u;
}

bool equal(const float* a, const float* b, int64_t dim) {
  for (int64_t i = 0; i < dim; ++i)
    if (a[i] != b[i]) return false;
  return true;
}

// Equal values hash alike, so -0 counts as 0. Four chains hide the latency of the multiplication.
uint64_t hash(const float* code, int64_t dim) {
  constexpr uint64_t prime = 0x9e3779b97f4a7c15u;
  uint64_t chain[4] = {1, 2, 3, 4};
  for (int64_t i = 0; i < dim; ++i) {
    const uint32_t bits = bits_of(code[i]);
    uint64_t& h = chain[i % 4];
    h = (h ^ (bits == 0x80000000u ? 0 : bits)) * prime;
    h ^= h >> 32;
  }
  uint64_t h = 0;
  for (const uint64_t part : chain) h = (h ^ part) * prime;
  return h ^ (h >> 29);
}

}  // namespace

int64_t distinct_codes(const float* codebook, int64_t num_codes, int64_t dim, int32_t* ids) {
  struct Slot {
    uint32_t hash;
    int32_t id;
  };
  size_t size = 16;
  while (size < 2 * size_t(num_codes)) size *= 2;
  std::vector<Slot> table(size, Slot{0, -1});

  int64_t count = 0;
  for (int64_t k = 0; k < num_codes; ++k) {
    const float* code = codebook + k * dim;
    if (!is_finite(code, dim)) continue;
    const uint64_t full = hash(code, dim);
    const uint32_t tag = uint32_t(full >> 32);
    size_t at = size_t(full) & (size - 1);
    while (table[at].id >= 0 &&
           (table[at].hash != tag || !equal(code, codebook + table[at].id * dim, dim)))
      at = (at + 1) & (size - 1);
    if (table[at].id >= 0) continue;
    table[at] = Slot{tag, int32_t(k)};
    ids[count++] = int32_t(k);
  }
  return count;
}

}  // namespace vqk
