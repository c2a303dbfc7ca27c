#include "vqk/residual.h"

#include <pybind11/stl.h>

#include <utility>
#include <vector>

#include "arguments.h"
#include "vqk/residual_backward.h"

namespace vqk::bindings {
namespace {

int64_t check_levels(int64_t levels) {
  if (levels < 1) refuse("levels", "be positive", std::to_string(levels));
  return levels;
}

void residual(const Rows& x, uintptr_t codebooks, int64_t num_codes, int64_t levels, bool shared,
              const std::vector<std::pair<uintptr_t, int64_t>>& prepared, uintptr_t mask,
              uintptr_t kept, uintptr_t indices, const Rows& quantized, const Rows* remainder,
              uintptr_t mse, uintptr_t counts, uintptr_t sums, uintptr_t code_remainders,
              int threads) {
  if (remainder != nullptr) check_rows("remainder", *remainder, x, Dtype::float32);
  const size_t codebook_count = shared ? 1 : size_t(check_levels(levels));
  if (!prepared.empty() && prepared.size() != codebook_count)
    refuse("prepared", "be empty or have one entry per codebook", std::to_string(prepared.size()));
  std::vector<Prepared> blocks;
  for (const auto& block : prepared) blocks.push_back(parse_prepared(block));
  const Residual args{x,
                      pointer<const float>(codebooks),
                      check_codes(num_codes),
                      check_levels(levels),
                      shared,
                      blocks.empty() ? nullptr : blocks.data(),
                      pointer<const uint8_t>(mask),
                      pointer<const int64_t>(kept),
                      pointer<int64_t>(indices),
                      check_rows("quantized", quantized, x, Dtype::float32),
                      remainder,
                      pointer<float>(mse),
                      pointer<int64_t>(counts),
                      pointer<float>(sums),
                      pointer<float>(code_remainders),
                      check_threads(threads)};
  const py::gil_scoped_release unlocked;
  vqk::residual(args);
}

void residual_backward(int estimator, const Rows* x, const Rows* quantized, const Rows* remainder,
                       uintptr_t code_remainders, uintptr_t mask, int64_t num_rows, int64_t dim,
                       int64_t num_codes, int64_t levels, bool shared, const Rows* grad_quantized,
                       uintptr_t grad_loss, double commitment_weight, double codebook_weight,
                       const Rows* grad_x, uintptr_t grad_codebooks, int threads) {
  const Estimator parsed = parse_estimator(estimator);
  if (grad_x != nullptr) {
    if (grad_x->count != num_rows) refuse("num_rows", "be grad_x's", std::to_string(num_rows));
    if (grad_x->dim != dim) refuse("dim", "be grad_x's", std::to_string(dim));
    if (remainder == nullptr) refuse("remainder", "be given with grad_x", "None");
    check_rows("remainder", *remainder, *grad_x, Dtype::float32);
    if (grad_quantized != nullptr)
      check_rows("grad_quantized", *grad_quantized, *grad_x, grad_x->dtype);
    if (parsed == Estimator::rotation) {
      if (x == nullptr || quantized == nullptr)
        refuse("x and quantized", "be given for the rotation", "None");
      check_rows("x", *x, *grad_x, grad_x->dtype);
      check_rows("quantized", *quantized, *grad_x, Dtype::float32);
    }
  }
  if (grad_codebooks != 0) {
    check_levels(levels);
    if (code_remainders == 0) refuse("code_remainders", "be given with grad_codebooks", "0");
  }
  const ResidualBackward args{parsed,
                              x,
                              quantized,
                              remainder,
                              pointer<const float>(code_remainders),
                              pointer<const uint8_t>(mask),
                              num_rows,
                              dim,
                              check_codes(num_codes),
                              levels,
                              shared,
                              grad_quantized,
                              pointer<const float>(grad_loss),
                              commitment_weight,
                              codebook_weight,
                              grad_x,
                              pointer<float>(grad_codebooks),
                              check_threads(threads)};
  const py::gil_scoped_release unlocked;
  vqk::residual_backward(args);
}

}  // namespace

void define_residual(py::module_& m) {
  m.def("residual", &residual, py::arg("x"), py::arg("codebooks"), py::arg("num_codes"),
        py::arg("levels"), py::arg("shared"), py::arg("prepared"), py::arg("mask"), py::arg("kept"),
        py::arg("indices"), py::arg("quantized"), py::arg("remainder"), py::arg("mse"),
        py::arg("counts"), py::arg("sums"), py::arg("code_remainders"), py::arg("threads"));
  m.def("residual_backward", &residual_backward, py::arg("estimator"), py::arg("x"),
        py::arg("quantized"), py::arg("remainder"), py::arg("code_remainders"), py::arg("mask"),
        py::arg("num_rows"), py::arg("dim"), py::arg("num_codes"), py::arg("levels"),
        py::arg("shared"), py::arg("grad_quantized"), py::arg("grad_loss"),
        py::arg("commitment_weight"), py::arg("codebook_weight"), py::arg("grad_x"),
        py::arg("grad_codebooks"), py::arg("threads"));
}

}  // namespace vqk::bindings
