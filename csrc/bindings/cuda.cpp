#include "arguments.h"
#include "vqk/cuda/code_sums.h"
#include "vqk/cuda/device.h"
#include "vqk/cuda/nearest_code.h"

namespace vqk::bindings {
namespace {

// Rows and channels are divided among threads in 32 bits where that is enough.
const Rows& check_dim(const Rows& x) {
  if (x.dim > std::numeric_limits<int32_t>::max())
    refuse("x", "have at most 2147483647 channels", std::to_string(x.dim));
  return x;
}

void nearest_code(const Rows& x, uintptr_t codebook, int64_t num_codes, int metric,
                  uintptr_t workspace, uintptr_t indices, uintptr_t distances, int device,
                  uintptr_t stream) {
  const cuda::NearestCode args{check_dim(x),
                               pointer<const float>(codebook),
                               check_codes(num_codes),
                               parse_metric(metric),
                               pointer<void>(workspace),
                               pointer<int64_t>(indices),
                               pointer<float>(distances),
                               {device, pointer<void>(stream)}};
  const py::gil_scoped_release unlocked;
  cuda::nearest_code(args);
}

void code_keys(const Rows& x, uintptr_t indices, uintptr_t mask, int64_t num_codes,
               bool skip_nonfinite, uintptr_t keys, uintptr_t scales, int device,
               uintptr_t stream) {
  const cuda::CodeKeys args{check_dim(x),
                            pointer<const int64_t>(indices),
                            pointer<const uint8_t>(mask),
                            check_codes(num_codes),
                            skip_nonfinite,
                            pointer<int32_t>(keys),
                            pointer<double>(scales),
                            {device, pointer<void>(stream)}};
  const py::gil_scoped_release unlocked;
  cuda::code_keys(args);
}

void code_sums(const Rows& x, uintptr_t keys, uintptr_t order, uintptr_t scales, int64_t num_codes,
               uintptr_t workspace, uintptr_t counts, uintptr_t sums, int device,
               uintptr_t stream) {
  const cuda::CodeSums args{check_dim(x),
                            pointer<const int32_t>(keys),
                            pointer<const int64_t>(order),
                            pointer<const double>(scales),
                            check_codes(num_codes),
                            pointer<void>(workspace),
                            pointer<int64_t>(counts),
                            pointer<float>(sums),
                            {device, pointer<void>(stream)}};
  const py::gil_scoped_release unlocked;
  cuda::code_sums(args);
}

}  // namespace

void define_cuda(py::module_& m) {
  py::module_ gpu =
      m.def_submodule("cuda", "Kernels on a device: a number and a stream's address.");
  gpu.def("unusable", &cuda::unusable, py::arg("device"));
  gpu.def("nearest_code_workspace", &cuda::nearest_code_workspace, py::arg("num_rows"),
          py::arg("num_codes"));
  gpu.def("nearest_code", &nearest_code, py::arg("x"), py::arg("codebook"), py::arg("num_codes"),
          py::arg("metric"), py::arg("workspace"), py::arg("indices"), py::arg("distances"),
          py::arg("device"), py::arg("stream"));
  gpu.def("code_keys", &code_keys, py::arg("x"), py::arg("indices"), py::arg("mask"),
          py::arg("num_codes"), py::arg("skip_nonfinite"), py::arg("keys"), py::arg("scales"),
          py::arg("device"), py::arg("stream"));
  gpu.def("code_sums_workspace", &cuda::code_sums_workspace, py::arg("num_rows"), py::arg("dim"),
          py::arg("num_codes"));
  gpu.def("code_sums", &code_sums, py::arg("x"), py::arg("keys"), py::arg("order"),
          py::arg("scales"), py::arg("num_codes"), py::arg("workspace"), py::arg("counts"),
          py::arg("sums"), py::arg("device"), py::arg("stream"));
}

}  // namespace vqk::bindings
