#pragma once

#include <cstdint>

#include "vqk/cuda/stream.h"
#include "vqk/rows.h"

namespace vqk::cuda {

// The two halves of vqk/code_sums.h on a device; between them the caller sorts the keys, stably.
// All pointers are on the device.

struct CodeKeys {
  Rows x;                  // (N, D)
  const int64_t* indices;  // (N,)
  const uint8_t* mask;     // (N,) 0 leaves the row out; null keeps all
  int64_t num_codes;       // K, 1 to 2^31 - 1
  bool skip_nonfinite;     // leave out rows with NaN or infinity
  int32_t* keys;           // (N,) out: the row's index; K where it is left out or has a bad index
  double* scales;          // (N,) out: 1 / max(|x|, 1e-12); null to skip
  Stream stream;
};

void code_keys(const CodeKeys& args);

// Bits depend on the order alone: float64 partials of the 256-position windows that lie inside one
// code's run, added in order between the rows before the first and after the last of them.
struct CodeSums {
  Rows x;                // (N, D)
  const int32_t* keys;   // (N,) ascending
  const int64_t* order;  // (N,) the row that each key belongs to
  const double* scales;  // (N,) of the rows of x; null adds x itself
  int64_t num_codes;     // K
  void* workspace;       // (code_sums_workspace(N, D, K),) bytes, aligned to 16
  int64_t* counts;       // (K,) out
  float* sums;           // (K, D) out
  Stream stream;
};

// 8 N + N D / 32 + 8 K bytes, rounded up.
int64_t code_sums_workspace(int64_t num_rows, int64_t dim, int64_t num_codes);
void code_sums(const CodeSums& args);

}  // namespace vqk::cuda
