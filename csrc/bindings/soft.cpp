#include "arguments.h"
#include "vqk/sample_codes.h"
#include "vqk/soft_assign.h"
#include "vqk/soft_assign_backward.h"

namespace vqk::bindings {
namespace {

double check_temperature(double temperature) {
  if (!(temperature > 0)) refuse("temperature", "be above 0", std::to_string(temperature));
  return temperature;
}

void soft_assign(const Rows& x, uintptr_t codebook, int64_t num_codes, uintptr_t mask,
                 double temperature, uintptr_t logsumexp, uintptr_t mean_logit, uintptr_t usage,
                 int threads) {
  const SoftAssign args{x,
                        pointer<const float>(codebook),
                        check_codes(num_codes),
                        pointer<const uint8_t>(mask),
                        check_temperature(temperature),
                        pointer<double>(logsumexp),
                        pointer<double>(mean_logit),
                        pointer<float>(usage),
                        check_threads(threads)};
  const py::gil_scoped_release unlocked;
  vqk::soft_assign(args);
}

void soft_assign_backward(uintptr_t grad_logsumexp, uintptr_t grad_mean_logit, uintptr_t grad_usage,
                          const Rows& x, uintptr_t codebook, int64_t num_codes, uintptr_t mask,
                          uintptr_t logsumexp, uintptr_t mean_logit, double temperature,
                          const Rows* grad_x, uintptr_t grad_codebook, int threads) {
  if (grad_x != nullptr) check_rows("grad_x", *grad_x, x, x.dtype);
  const SoftAssignBackward args{pointer<const double>(grad_logsumexp),
                                pointer<const double>(grad_mean_logit),
                                pointer<const float>(grad_usage),
                                x,
                                pointer<const float>(codebook),
                                check_codes(num_codes),
                                pointer<const uint8_t>(mask),
                                pointer<const double>(logsumexp),
                                pointer<const double>(mean_logit),
                                check_temperature(temperature),
                                grad_x,
                                pointer<float>(grad_codebook),
                                check_threads(threads)};
  const py::gil_scoped_release unlocked;
  vqk::soft_assign_backward(args);
}

void sample_codes(const Rows& x, uintptr_t codebook, int64_t num_codes, uintptr_t logsumexp,
                  uintptr_t uniform, double temperature, uintptr_t indices, int threads) {
  const SampleCodes args{x,
                         pointer<const float>(codebook),
                         check_codes(num_codes),
                         pointer<const double>(logsumexp),
                         pointer<const double>(uniform),
                         check_temperature(temperature),
                         pointer<int64_t>(indices),
                         check_threads(threads)};
  const py::gil_scoped_release unlocked;
  vqk::sample_codes(args);
}

}  // namespace

void define_soft(py::module_& m) {
  m.def("soft_assign", &soft_assign, py::arg("x"), py::arg("codebook"), py::arg("num_codes"),
        py::arg("mask"), py::arg("temperature"), py::arg("logsumexp"), py::arg("mean_logit"),
        py::arg("usage"), py::arg("threads"));
  m.def("soft_assign_backward", &soft_assign_backward, py::arg("grad_logsumexp"),
        py::arg("grad_mean_logit"), py::arg("grad_usage"), py::arg("x"), py::arg("codebook"),
        py::arg("num_codes"), py::arg("mask"), py::arg("logsumexp"), py::arg("mean_logit"),
        py::arg("temperature"), py::arg("grad_x"), py::arg("grad_codebook"), py::arg("threads"));
  m.def("sample_codes", &sample_codes, py::arg("x"), py::arg("codebook"), py::arg("num_codes"),
        py::arg("logsumexp"), py::arg("uniform"), py::arg("temperature"), py::arg("indices"),
        py::arg("threads"));
}

}  // namespace vqk::bindings
