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
//
// Cells of codes. Let m_g be the centre of cell g, any float32 values, and C_g >= |B -
// m_g| for its codes. There the score is V = -|z - B|^2/2, found from a = z - m_g and B - m_g as
// the score S is, less |a|^2/2; it cannot lose small distances beside large norms. It orders codes
// as -|A - B|^2/2 does, but for (A - z).B, which |A - z| <= u |A| and |z - B| <= p, p = |a| + C_g,
// bound for each: what else A - z moves is the same for all codes. The products, sums and roundings
// are as above, with |a|^2 in C^2's place once more, and a itself is rounded. So V is within
//   p (beta p + 2 u |A|),  beta = (D + 16) u / (1 - (D + 16) u)
// of what is computed, F's own rounding included.
//
// For cosine A = 2^q (x/|x| - mu) of a row rounded to float32 once more, which moves it by 2^q u.
// Codes are of about unit length, and x.c/|x| orders them as V + 4^q |c|^2/2 does: V has the
// further error `slack`, half of 4^q times the largest | |c|^2 - 1 |, and (D + 8) 2^-52 4^q for F's
// rounding.
//
// And a cell may need no scores at all. Let m_j be another centre and d = |m_j - m_g|. The signed
// distance of a point to the bisector of the two changes by no more than the point moves, so
//   |A - B| >= margin + (|A - m_g|^2 - |A - m_j|^2) / (2 d),
//   margin = min over B in g of (|B - m_j|^2 - |B - m_g|^2) / (2 d)
//          = d/2 - max over B in g of (B - m_g).(m_j - m_g)/d.
// With rho = (D + 16) u for the relative error of d and of the direction as computed, and alpha C_g
// for the product, `cell_margin` is below it. The row's part comes from its scores with all
// centres, s_g = A.m_g - |m_g|^2/2, as (s_j - s_g) / d. With R_g >= |m_g| and R_g <= R_j + d its
// error is
//   alpha (|z| (R_g + R_j) + R_g^2 + R_j^2) / d <= alpha (|z| + 2 d + (2 |z| R_j + 3 R_j^2) / d),
// of which 2 alpha d is in the margin already. That is the distance from z; the one from A differs
// by u |A| at most, here and for the best code known.
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

// Rows further out than this are not searched by cells: their squares would overflow.
constexpr float most_norm_in_cells = 0x1p60f;

// Stale centres further out than this are of no use, and scores with them could overflow. No code
// is: |B| <= 2 sqrt(D).
constexpr double most_norm_of_centre = 0x1p20;

struct CellBound {
  float beta, drift;  // drift = 2 u |A|, and for cosine 2 u 2^q
  float slack;
};

// norm: at least |A|, and for cosine 2^q more.
VQK_INLINE CellBound cell_bound(double norm, float slack, int64_t dim) {
  return {float(bound_slack * bound_alpha(dim + 8)), float(bound_slack * 0x1p-23 * norm), slack};
}

// unevenness: the largest | |c|^2 - 1 |. scale: 2^q.
VQK_INLINE float cell_slack(Metric metric, double unevenness, double scale, int64_t dim) {
  const double rounding = double(dim + 8) * 0x1p-52;
  const double slack = bound_slack * scale * scale * (0.5 * unevenness + rounding);
  return float(metric == Metric::cosine ? slack : 0.0) + 0x1p-120f;
}

// The error of V. near: |a| as computed; reach: C_g.
VQK_INLINE float cell_error(const CellBound& bound, float near, float reach) {
  const float p = near + reach;
  return p * (bound.beta * p + bound.drift) + bound.slack;
}

// rho: bounds the relative errors of 1/d and of directions.
VQK_INLINE double inverse_error(int64_t dim) { return double(dim + 16) * 0x1p-24; }

// Centres closer than this, squared, have no bisector that float32 can tell.
constexpr float least_square_between = 0x1p-100f;

// A lower bound of the margin.
//   inverse: 1/d as computed
//   most:    the largest (B - m_g).(m_j - m_g)/d as computed
VQK_INLINE float cell_margin(float inverse, float most, float reach, int64_t dim) {
  const double rho = inverse_error(dim), alpha = bound_alpha(dim);
  const double half = 0.5 / double(inverse) * (1.0 - 2.0 * rho - 8.0 * alpha);
  const double margin = half - most - (2.0 * alpha + 2.0 * rho) * reach;
  return float(margin - 0x1p-22 * __builtin_fabs(margin) - 0x1p-120);
}

// A row's part, from scores: cell g holds nothing that near if
//   margin + (own - s_g) * inverse > within
// in float32, where inverse = (1 - rho) / d and s_j >= s_g.
struct RowMargin {
  float own;     // s_j less the errors that grow with 1/d
  float within;  // the smallest distance known, and the other errors
};

// best: a lower bound of V of some code. reach: R_j. The lean's factor makes up for 1 - rho, and
// for the rounding of inverse and of `own`.
VQK_INLINE RowMargin row_margin(const RowBound& bound, const CellBound& cell, float best,
                                float score, float reach) {
  const double square = 2.0 * (double(cell.slack) - best);
  const double distance = square > 0.0 ? __builtin_sqrt(square) : 0.0;
  const double slope = bound.slope, far = reach;
  const double lean =
      (1.0 + 4.0 * double(cell.beta)) * (2.0 * slope * far + 3.0 * double(cell.beta) * far * far);
  const double within = (distance + cell.drift + 2.0 * slope) * (1.0 + 0x1p-18) + 0x1p-100;
  return {float(double(score) - lean), float(within)};
}

}  // namespace vqk
