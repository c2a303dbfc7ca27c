#pragma once

#include <cstdint>

namespace vqk {

// Adds the statistics of one training forward to what is pending, keeps its candidate rows, and
// counts the step when a row counted.
struct Observe {
  float* pending_counts;   // (K,)
  float* pending_sums;     // (K, D); null to skip
  float* pending_rows;     // (R, D); null to skip
  int64_t* pending_steps;  // ()
  const int64_t* counts;   // (K,)
  const float* sums;       // (K, D); null with pending_sums
  const float* rows;       // (R, D); null with pending_rows
  const int64_t* found;    // () usable rows; pending_rows stays without one
  int64_t num_codes;       // K
  int64_t dim;             // D
  int64_t num_rows;        // R
  int threads;
};

void observe(const Observe& args);

}  // namespace vqk
