#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "vqk/metric.h"

// The certificate of the CUDA search: what a float32 score may exclude. Nothing else relies on it.
//
// A score v is -x.c (cosine) or the squared distance (l2), so that the smallest is the best; s is
// its real value, u = 2^-24, and gamma = (D + 8) u / (1 - (D + 8) u).
//
// l2: v is a chain of D fused multiply-adds of differences rounded once. Every square carries two
// roundings of its difference and at most D of the chain: |v - s| <= gamma' s + D 2^-149 with
// gamma' = (D + 2) u / (1 - (D + 2) u); the differences themselves lose nothing to underflow.
// cosine: |v - s| <= gamma' sum |x_i c_i| + D 2^-149 <= gamma' |x| |c| + D 2^-149.
//
// F, which decides, is a float64 sum: |F - s| <= (D + 2) 2^-53 s, or D 2^-53 |x| |c|. The six units
// between gamma' and gamma are far more than twice that, and than the rounding of the formulas
// below.
//
// So when `best` is the score of any code, a code whose score is above
//   l2:     (best (1 + gamma) + 2 tiny) / (1 - gamma)
//   cosine: best + 2 (gamma |x| C + tiny),  C >= |c| for every finite code
// has a larger F than that code and cannot be the answer. An overflow makes the score of a finite
// code infinite (or NaN for cosine), and nothing is excluded where one can have happened: above
// 2^126 the limit is infinite.
namespace vqk::cuda {

struct Bound {
  double relative;  // gamma; 1 where D is too large for a certificate
  double growth;    // (1 + gamma) / (1 - gamma)
  double tiny;      // covers the underflow, in either formula
};

// On the host, so that the kernels divide nothing.
inline Bound bound_for(int64_t dim) {
  const double units = double(dim + 8) * 0x1p-24;
  const double gamma = units < 0.5 ? units / (1.0 - units) : 1.0;
  return {gamma, gamma < 0.5 ? (1.0 + gamma) / (1.0 - gamma) : 3.0, double(dim) * 0x1p-124};
}

constexpr double score_overflows = 0x1p126;

// The largest score that a code may have and still be the answer. `size` is at least |x| C, read
// for cosine only.
template <Metric metric>
__device__ inline float score_limit(const Bound& bound, float best, double size) {
  const bool is_l2 = metric == Metric::l2;
  const double limit =
      is_l2 ? __dadd_rn(__dmul_rn(double(best), bound.growth), bound.tiny)
            : __dadd_rn(double(best), __dadd_rn(__dmul_rn(2.0 * bound.relative, size), bound.tiny));
  // Both comparisons are false for NaN.
  const bool certain = bound.relative < 0.5 && (is_l2 ? limit : size) < score_overflows;
  return certain ? __double2float_ru(limit) : __int_as_float(0x7f800000);
}

}  // namespace vqk::cuda
