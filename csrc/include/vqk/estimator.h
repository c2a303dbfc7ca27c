#pragma once

namespace vqk {

// How the gradient of the quantized rows reaches x.
enum class Estimator {
  straight_through,  // unchanged
  rotation,          // (|q|/|u|) R^T g, R the rotation from u/|u| to q/|q| (arXiv 2410.06424)
};

}  // namespace vqk
