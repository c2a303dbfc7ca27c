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

// The signed scores of eight codes as in ExactSearch::add.
void scores_of_eight(Metric metric, int64_t dim, const double* row, const float* codes,
                     double* scores);

// The lane, of eight codes as in add, with the largest signed score; the first of equal ones. At
// least one code must not be NaN.
int best_of_eight(Metric metric, int64_t dim, const double* row, const float* codes,
                  double* best_score);

// The lane of the code that is nearest to `row`, (D,), beyond doubt of float32; -1 if there is
// doubt. The other arguments are as in best_of_eight; l2 only.
int certain_of_eight(int64_t dim, const float* row, const float* codes);

// The signed score of one row, (D,), with one code.
double exact_score(Metric metric, int64_t dim, const float* row, const float* code);

// distances[r] = F of row r of x, (.., padded(D)), and code indices[r], for the `count` numbers r
// in `rows`.
void exact_distances(Metric metric, int64_t dim, const float* x, const float* codebook,
                     const int64_t* rows, int64_t count, const int64_t* indices, float* distances);

}  // namespace vqk::VQK_LEVEL
