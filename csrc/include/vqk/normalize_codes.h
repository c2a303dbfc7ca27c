#pragma once

#include <cstdint>

#include "vqk/rows.h"

namespace vqk {

// unit[k] = fl32(c_k / |c_k|), the codebook of the cosine metric; a zero code stays zero. |c| is
// float64, squares added with the channel ascending.
struct NormalizeCodes {
  Rows codebook;  // (K, D)
  float* unit;    // (K, D) out
  double* norms;  // (K,) out
  int threads;
};

void normalize_codes(const NormalizeCodes& args);

}  // namespace vqk
