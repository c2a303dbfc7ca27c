#include "distinct_codes.h"

#include "memory.h"

namespace vqk {
namespace {

bool equal(const float* a, const float* b, int64_t dim) {
  for (int64_t i = 0; i < dim; ++i)
    if (a[i] != b[i]) return false;
  return true;
}

}  // namespace

int64_t distinct_codes(const float* codebook, const uint64_t* hashes, int64_t num_codes,
                       int64_t dim, int32_t* ids, int32_t* next) {
  int64_t size = 16;
  while (size < 2 * num_codes) size *= 2;
  const Buffer<int32_t> table(size), last(next != nullptr ? num_codes : 0);
  for (int64_t i = 0; i < size; ++i) table[i] = -1;

  int64_t count = 0;
  for (int64_t k = 0; k < num_codes; ++k) {
    if (next != nullptr) next[k] = -1;
    if (hashes[k] == 0) continue;
    int64_t at = int64_t(hashes[k] >> 1) & (size - 1);
    while (table[at] >= 0 && (hashes[table[at]] != hashes[k] ||
                              !equal(codebook + k * dim, codebook + table[at] * dim, dim)))
      at = (at + 1) & (size - 1);
    const bool repeated = table[at] >= 0;
    if (!repeated) table[at] = int32_t(k);
    if (next != nullptr) {
      if (repeated) next[last[table[at]]] = int32_t(k);
      last[table[at]] = int32_t(k);
    }
    if (repeated) continue;
    ids[count++] = int32_t(k);
  }
  return count;
}

}  // namespace vqk
