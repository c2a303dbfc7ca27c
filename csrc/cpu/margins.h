#pragma once

#include "pruned_codebook.h"

namespace vqk::VQK_LEVEL {

// Fills codes.margins from its columns and centres.
void fill_margins(const PrunedCodebook& codes, int threads);

}  // namespace vqk::VQK_LEVEL
