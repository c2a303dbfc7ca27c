#pragma once

#include <cstdint>

namespace vqk {

// Moves a codebook by its pending statistics when at least `steps_due` steps are pending, then
// replaces dead codes. The formulas and their bits are those of ops/advance.py: float32, each
// operation rounded separately, sums over codes as a binary tree.
struct Advance {
  float* codebook;          // (K, D)
  float* cluster_size;      // (K,)
  float* embed_sum;         // (K, D); null when only the counts move
  float* pending_counts;    // (K,)
  float* pending_sums;      // (K, D); null with embed_sum
  const float* candidates;  // (R, D) rows for dead codes; null never revives
  int64_t* pending_steps;   // ()
  int64_t* clock;           // ()
  int64_t* idle;            // (K,) rows that all codes took since this one took one; may be null
  int64_t* revived;         // () codes replaced so far; may be null
  const int64_t* frozen;    // (K,) not 0: the code neither moves nor is replaced; may be null
  int64_t num_codes;        // K
  int64_t dim;              // D
  int64_t num_candidates;   // R >= 1 with candidates
  double decay;
  double epsilon;
  int64_t steps_due;
  bool unit;  // normalise the codes that the statistics moved
  double threshold;
  int64_t idle_limit;    // idle for so many rows is dead; 0, or no idle: however long
  int64_t revive_every;  // >= 1
  int threads;
};

void advance(const Advance& args);

}  // namespace vqk
