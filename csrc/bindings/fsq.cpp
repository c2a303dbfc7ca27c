#include "vqk/fsq.h"

#include "arguments.h"

namespace vqk::bindings {
namespace {

ScalarLevels scalar_levels(uintptr_t levels, uintptr_t basis, uintptr_t start, uintptr_t limits,
                           uintptr_t shift, uintptr_t gain, uintptr_t bias, uintptr_t half,
                           int stride, int bound) {
  if (stride != 1 && stride != 2) refuse("stride", "be 1 or 2", std::to_string(stride));
  if (bound != 0 && bound != 1) refuse("bound", "be 0 (tanh) or 1 (clamp)", std::to_string(bound));
  return {pointer<const int32_t>(levels),
          pointer<const int64_t>(basis),
          pointer<const int64_t>(start),
          pointer<const float>(limits),
          pointer<const float>(shift),
          pointer<const float>(gain),
          pointer<const float>(bias),
          pointer<const float>(half),
          stride,
          Bound(bound)};
}

void fsq(const Rows& x, const ScalarLevels& scalars, uintptr_t mask, const Rows& quantized,
         uintptr_t indices, uintptr_t mse, int64_t num_codes, uintptr_t counts, int threads) {
  const Fsq args{x,
                 scalars,
                 pointer<const uint8_t>(mask),
                 check_rows("quantized", quantized, x, x.dtype),
                 pointer<int64_t>(indices),
                 pointer<float>(mse),
                 num_codes,
                 pointer<int64_t>(counts),
                 check_threads(threads)};
  if (args.counts != nullptr) check_codes(num_codes);
  const py::gil_scoped_release unlocked;
  vqk::fsq(args);
}

void fsq_backward(const Rows& grad_quantized, const Rows& x, const ScalarLevels& scalars,
                  uintptr_t mask, const Rows& grad_x, int threads) {
  const FsqBackward args{check_rows("grad_quantized", grad_quantized, x, x.dtype),
                         x,
                         scalars,
                         pointer<const uint8_t>(mask),
                         check_rows("grad_x", grad_x, x, x.dtype),
                         check_threads(threads)};
  const py::gil_scoped_release unlocked;
  vqk::fsq_backward(args);
}

int64_t fsq_lookup(uintptr_t indices, const ScalarLevels& scalars, int64_t num_codes,
                   const Rows& out, int threads) {
  check_rows("out", out, out, Dtype::float32);
  const FsqLookup args{pointer<const int64_t>(indices), scalars, num_codes, out,
                       check_threads(threads)};
  const py::gil_scoped_release unlocked;
  return vqk::fsq_lookup(args);
}

}  // namespace

void define_fsq(py::module_& m) {
  py::class_<ScalarLevels>(m, "ScalarLevels")
      .def(py::init(&scalar_levels), py::arg("levels"), py::arg("basis"), py::arg("start"),
           py::arg("limits"), py::arg("shift"), py::arg("gain"), py::arg("bias"), py::arg("half"),
           py::arg("stride"), py::arg("bound"));
  m.def("fsq", &fsq, py::arg("x"), py::arg("scalars"), py::arg("mask"), py::arg("quantized"),
        py::arg("indices"), py::arg("mse"), py::arg("num_codes"), py::arg("counts"),
        py::arg("threads"));
  m.def("fsq_backward", &fsq_backward, py::arg("grad_quantized"), py::arg("x"), py::arg("scalars"),
        py::arg("mask"), py::arg("grad_x"), py::arg("threads"));
  m.def("fsq_lookup", &fsq_lookup, py::arg("indices"), py::arg("scalars"), py::arg("num_codes"),
        py::arg("out"), py::arg("threads"));
}

}  // namespace vqk::bindings
