#pragma once

#include <cstdint>

#include "vqk/metric.h"

namespace vqk::VQK_LEVEL {

// The canonical score of one row with many codes, eight codes at a time. Scores are signed so that
// the largest wins: -F for l2, F for cosine.
struct ExactSearch {
  Metric metric;
  int64_t dim;
  const double* row;  // (D,) the row, widened

  alignas(64) double score[8];      // best of each lane, -infinity at first
  alignas(64) int64_t position[8];  // where the lane found it

  ExactSearch(Metric metric, int64_t dim, const double* row);

  // Scores `codes`, (D, 8) aligned to 32 bytes; lane 0 is at `first_position`. Positions must
  // ascend from call to call. NaN codes never win.
  void add(const float* codes, int64_t first_position);

  // The largest score, at the lowest position that has it.
  void best(double* best_score, int64_t* best_position) const;
};

// The lane, of eight codes as in add, with the largest signed score; the first of equal ones. At
// least one code must not be NaN.
int best_of_eight(Metric metric, int64_t dim, const double* row, const float* codes,
                  double* best_score);

constexpr int pair_block = 8;

// F of pair_block pairs of a row with a code, (D,) each.
void score_pairs(Metric metric, int64_t dim, const float* const* rows, const float* const* codes,
                 double* scores);

}  // namespace vqk::VQK_LEVEL
