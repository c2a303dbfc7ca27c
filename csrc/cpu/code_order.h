#pragma once

#include <cstdint>

#include "memory.h"

namespace vqk::VQK_LEVEL {

// Rows ordered by code, stable.
struct CodeOrder {
  // codes: (N,), -1 leaves the row out
  CodeOrder(const int32_t* codes, int64_t num_rows, int64_t num_codes, int threads);
  ~CodeOrder();

  int64_t count;           // M, rows that are not left out
  Buffer<int64_t> starts;  // (K + 1,) first place of each code
  Buffer<int64_t> rows;    // (M,) the row at each place
};

}  // namespace vqk::VQK_LEVEL
