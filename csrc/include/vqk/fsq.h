#pragma once

#include <cstdint>

#include "vqk/rows.h"

namespace vqk {

enum class Bound { tanh, clamp };

// Finite scalar quantization of D channels. Channel i with L levels, u = tanh or the clamp to
// [-1, 1], and a digit d from 0:
//   bounded(x) = gain u(x + shift) + bias,  code(d) = (stride d - half) / half,
//   d = the number of x's limits, but for the first, that are not above x.
struct ScalarLevels {
  const int32_t* levels;  // (D,) L
  const int64_t* basis;   // (D,) what a digit counts in the index
  const int64_t* start;   // (D,) where the channel's L + 1 limits begin; the outermost are infinite
  const float* limits;    // ascending in each channel
  const float* shift;     // (D,)
  const float* gain;      // (D,)
  const float* bias;      // (D,)
  const float* half;      // (D,)
  int stride;             // 1 or 2
  Bound bound;
};

// quantized = code, NaN in rows that are not finite (index 0) and x where masked (index -1).
struct Fsq {
  Rows x;  // (N, D)
  ScalarLevels scalars;
  const uint8_t* mask;  // (N,) 0 masks the row; null keeps all
  Rows quantized;       // (N, D) of x's dtype, out
  int64_t* indices;     // (N,) out
  float* mse;           // () out: mean over unmasked elements of (bounded(x) - code)^2
  int64_t num_codes;    // K
  int64_t* counts;      // (K,) out: unmasked finite rows of each code; null to skip
  int threads;
};

void fsq(const Fsq& args);

// grad_x = grad_quantized d bounded / dx; grad_quantized where masked.
struct FsqBackward {
  Rows grad_quantized;  // (N, D) of x's dtype
  Rows x;               // (N, D)
  ScalarLevels scalars;
  const uint8_t* mask;  // (N,) 0 masks the row; null keeps all
  Rows grad_x;          // (N, D) of x's dtype, out
  int threads;
};

void fsq_backward(const FsqBackward& args);

// out = the codes of the indices; index -1 gives a zero row.
struct FsqLookup {
  const int64_t* indices;  // (N,)
  ScalarLevels scalars;
  int64_t num_codes;  // K
  Rows out;           // (N, D) float32
  int threads;
};

// Returns the first n whose index is outside [-1, K), in which case `out` is not written, or -1.
int64_t fsq_lookup(const FsqLookup& args);

}  // namespace vqk
