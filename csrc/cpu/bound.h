#pragma once

#include <cstdint>

#include "inline.h"
#include "vqk/metric.h"

// The certificate: how far a screen score can be from the real score, and what follows for the
// canonical score F. Everything the screen may exclude rests on this file.
//
// Real numbers, after the exact scale 2^q of codes and rows: A = 2^q (x - mu), B = 2^q (c - mu) for
// any mu (cosine: A = 2^p x, and the shift changes x.c by the same amount for all codes).
// Score S = A.B - |B|^2/2 (cosine: A.B); the best code has the largest.
//
// The screen holds z = fl(A), b = fl(B), h = fl(|B|^2/2), each rounded once, and adds D products to
// -h in float32. With u = 2^-24, z and C >= |b|:
//   rounding of z and b:        2 u |z| C
//   rounding of h:              u C^2/2; where h is summed in float32 from b: (D/2 + 1) u C^2
//   D products, D additions:    (D + 1) u (|z| C + C^2/2)     one rounding fewer each when fused
//   rounding of U and L below:  3 u (|z| C + C^2/2)
// which is at most alpha (|z| C + C^2) with alpha = (D + 8) u / (1 - (D + 8) u). Underflow adds at
// most 2^-149 for every component of z and b and every operation, covered by `offset`.
//
// F is rounded too: its relative error is (D + 2) 2^-53 for l2, so a code with a smaller S can win
// F. The gap in S is at most (D + 3) 2^-53 d with d <= 2 |A|^2 + 2 |B|^2. The part in |B| is far
// below alpha C^2; the part in |A| goes to `offset`. Cosine: D 2^-52 |x| |c|, |c| <= C + |mu|.
//
// Hence, with error = slope * C + curve + offset per row and group: a group whose best screen score
// plus its error is below the largest (score - error) of any group cannot hold the argmin of F, and
// one that is so below those of k groups holds none of the k best codes.
//
// A code far out needs no score. Some code has |B| <= L, so the best is within |A| + L of a row,
// and a code with |B| > (2 |A| + L) (1 + 2^-8) is beyond (|A| + L) (1 + 2^-8): its F is larger.
// With L above the |B| of k codes, it is none of the k best.
namespace vqk {

// Where a screen's numbers live: A = scale (x - shift), B = scale (c - shift).
struct Frame {
  int64_t dim;
  Metric metric;
  double scale;         // 2^q
  double shift_norm;    // |2^q mu|
  const double* shift;  // (padded(D),) mu, float32 values
};

struct RowBound {
  float slope;   // alpha |z|
  float offset;  // infinite: nothing may be excluded
};

// Covers the float32 rounding of the bound itself, and turns measured norms into upper bounds.
constexpr double bound_slack = 1.0 + 0x1p-18;

VQK_INLINE double bound_alpha(int64_t dim) {
  const double units = double(dim + 8) * 0x1p-24;
  return units < 0.5 ? bound_slack * units / (1.0 - units) : __builtin_inf();
}

// Upper bound of the norm in a group, C.
VQK_INLINE float group_reach(double largest_norm) { return float(bound_slack * largest_norm); }

VQK_INLINE float group_curve(double largest_norm, int64_t dim, Metric metric) {
  if (metric == Metric::cosine) return 0.0f;
  return float(bound_slack * bound_alpha(dim) * largest_norm * largest_norm);
}

// `norm` is |z|, `shift_norm` is |2^q mu|. For l2 the offset leaves float32 where |z| reaches about
// 2^87; screen scores stay finite up to there.
VQK_INLINE RowBound row_bound(double norm, double shift_norm, int64_t dim, Metric metric) {
  const double alpha = bound_alpha(dim);
  const double other = metric == Metric::cosine ? shift_norm : norm;
  const double canonical = double(dim + 8) * 0x1p-51 * norm * other;
  const double underflow = double(dim + 8) * 0x1p-140 * (1.0 + norm);
  const double offset = bound_slack * (canonical + underflow);
  if (!(alpha < 1.0) || !(offset < 0x1p127)) return {0.0f, __builtin_inff()};
  return {float(bound_slack * alpha * norm), float(offset)};
}

// l2: codes with |B| above this cannot be among the best for rows with |A| <= `norm`, where enough
// codes have |B| <= `least`.
VQK_INLINE double far_norm(double norm, double least) {
  return (2.0 * norm + least) * (1.0 + 0x1p-8) + 0x1p-100;
}

}  // namespace vqk
