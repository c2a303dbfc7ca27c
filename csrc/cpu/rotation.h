#pragma once

#include <cstdint>

#include "double8.h"
#include "row_norms.h"

namespace vqk::VQK_LEVEL {

// One row: everything (padded(D),) float32 with zero padding, arithmetic in float64.
struct RowGradient {
  const float* x;
  const float* q;
  const float* upstream;  // gradient of the quantized row
  double divisor;         // u = x / divisor
};

// E(g) = stretch * g + along_u * u + along_q * q, or g when not rotated.
struct Rotation {
  bool present;
  double stretch, along_u, along_q;
};

// E(g) of eight channels.
VQK_INLINE Double8 rotated(const Rotation& rotation, const Double8& g, const Double8& u,
                           const Double8& q) {
  if (!rotation.present) return g;
  return splat(rotation.stretch) * g + splat(rotation.along_u) * u + splat(rotation.along_q) * q;
}

namespace {

double dot(const float* a, const float* b, int64_t width) {
  Double8 sum{};
  for (int64_t i = 0; i < width; i += 8) sum = sum + widen(a + i) * widen(b + i);
  return sum_lanes(sum);
}

// (|q|/|u|) (g - 2 r (r.g) + 2 uh (qh.g)) with r = (uh + qh)/|uh + qh|, in terms of u and q. The
// norm of uh + qh is clamped: opposite vectors leave r without a direction.
Rotation rotate(const RowGradient& row, int64_t width) {
  const double u_norm = __builtin_sqrt(dot(row.x, row.x, width)) / row.divisor;
  const double q_norm = __builtin_sqrt(dot(row.q, row.q, width));
  if (u_norm == 0.0 || q_norm == 0.0) return {false, 1.0, 0.0, 0.0};

  const double u_scale = 1.0 / (u_norm * row.divisor), q_scale = 1.0 / q_norm;
  Double8 square{}, across{}, along{};
  for (int64_t i = 0; i < width; i += 8) {
    const Double8 g = widen(row.upstream + i);
    const Double8 qh = widen(row.q + i) * splat(q_scale);
    const Double8 sum = widen(row.x + i) * splat(u_scale) + qh;
    square = square + sum * sum;
    across = across + sum * g;
    along = along + qh * g;
  }
  const double length = __builtin_sqrt(sum_lanes(square));
  const double clamped = length < smallest_norm ? smallest_norm : length;
  const double reflect = 2.0 * sum_lanes(across) / (clamped * clamped);
  const double stretch = q_norm / u_norm;
  return {true, stretch, stretch * (2.0 * sum_lanes(along) - reflect) / u_norm,
          -stretch * reflect / q_norm};
}

}  // namespace
}  // namespace vqk::VQK_LEVEL
