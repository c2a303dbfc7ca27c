#pragma once

namespace vqk {

enum class Metric {
  l2,      // smallest squared distance
  cosine,  // largest dot product; the caller has normalised the codebook
};

}  // namespace vqk
