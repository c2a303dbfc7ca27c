#pragma once

#include <cstdint>

#include "memory.h"

namespace vqk::VQK_LEVEL {

// What one pass over a codebook tells: where it lies and how large it is. Screens subtract `shift`
// and multiply by `scale`; bound.h holds for any choice, so neither changes a result.
//
// Training can send codes that no row chose 10^5 times as far out as the others, and leave them
// there. A *shell* is the codes of like size, with a gap to the next one; shell 0 has the smallest.
struct CodebookSurvey {
  static constexpr int most_shells = 8;

  // codebook: (K, D). Without `with_hashes` no hash is computed.
  CodebookSurvey(const float* codebook, int64_t num_codes, int64_t dim, bool with_hashes,
                 int threads);
  ~CodebookSurvey();

  Buffer<double> shift;     // (padded(D),) mu, float32 values: a centre of the codes of one shell
  double scale;             // 2^q: every |c - mu| becomes at most 2
  double shift_norm;        // |2^q mu|
  float reach;              // the largest |c_i| of a finite code
  float least_reach;        // above the largest |c_i| of one of the smallest codes
  int64_t first_finite;     // lowest index of a finite code; -1 without one
  Buffer<uint64_t> hashes;  // (K,) equal codes have equal ones; 0 marks a code that is not finite
  int num_shells;
  Buffer<uint8_t> shells;  // (K,) shell of a code, 255 if it is not finite; only where several are
};

}  // namespace vqk::VQK_LEVEL
