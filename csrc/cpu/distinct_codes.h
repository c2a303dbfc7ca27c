#pragma once

#include <cstdint>

namespace vqk {

// Writes to `ids` (K,) the ascending indices of the codes of `codebook` (K, D) that can win:
// finite, and not equal in value to an earlier code. Without the second condition a codebook of
// dead, equal codes would make every code a candidate of every row. Returns how many.
// `hashes` (K,) are those of CodebookSurvey. `next` (K,), null to skip, gets the following code of
// equal value, or -1.
int64_t distinct_codes(const float* codebook, const uint64_t* hashes, int64_t num_codes,
                       int64_t dim, int32_t* ids, int32_t* next);

}  // namespace vqk
