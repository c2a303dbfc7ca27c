#pragma once

#include <cstdint>

#include "vqk/prepare.h"
#include "vqk/rows.h"

namespace vqk {

// All levels of a residual quantizer. With r_0 = x, for l = 0 ... L - 1:
//   index_l = nearest_code of r_l among the codes of level l (l2), c_l that code,
//   r_{l+1} = fl32(r_l - c_l),
// and quantized = c_0 + c_1 + ... in float32, the level ascending.
// Masked rows get index -1 at every level and quantized = x. A row that is kept for fewer levels
// gets index -1 at the later ones, which add nothing to it or of it. A row with NaN or infinity
// gets index 0 and quantized NaN, and is left out of counts and sums; so is one whose subtraction
// overflows, from the next level on. Deterministic at any thread count.
struct Residual {
  Rows x;                    // (N, D)
  const float* codebooks;    // (L, K, D), or (1, K, D) when shared
  int64_t num_codes;         // K >= 1
  int64_t levels;            // L >= 1
  bool shared;               // every level uses the same codes
  const Prepared* prepared;  // (L,), or (1,) when shared; null: none
  const uint8_t* mask;       // (N,) 0 masks the row; null keeps all
  const int64_t* kept;       // (N,) levels, from the first, that the row takes part in; null: all
  int64_t* indices;          // (N, L) out
  Rows quantized;            // (N, D) float32 out
  const Rows* remainder;     // (N, D) float32 out: r_1 + ... + r_kept, 0 where masked; null to skip
  float* mse;              // (L,) out: mean over unmasked elements of (r_l - c_l)^2; 0 without one
  int64_t* counts;         // (L, K) out
  float* sums;             // (L, K, D) out: sums of r_l per code; null to skip
  float* code_remainders;  // (L, K, D) out: sums of r_{l+1} per code, NaN for code 0 where a row of
                           // the level is not finite; null to skip
  int threads;
};

void residual(const Residual& args);

}  // namespace vqk
