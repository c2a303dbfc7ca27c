#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "vqk/code_sums.h"
#include "vqk/fma_peak.h"
#include "vqk/isa.h"
#include "vqk/lookup.h"
#include "vqk/nearest_code.h"
#include "vqk/vq_backward.h"
#include "vqk/vq_forward.h"

namespace py = pybind11;

namespace {

using vqk::Rows;

template <class T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

[[noreturn]] void refuse(const std::string& argument, const std::string& contract,
                         const std::string& value) {
  throw std::invalid_argument(argument + " must " + contract + ", got " + value);
}

vqk::Dtype parse_dtype(const std::string& name) {
  if (name == "float32") return vqk::Dtype::float32;
  if (name == "float16") return vqk::Dtype::float16;
  if (name == "bfloat16") return vqk::Dtype::bfloat16;
  throw py::type_error("dtype must be float32, float16 or bfloat16, got " + name);
}

Rows rows(uintptr_t data, const std::string& dtype, const std::vector<int64_t>& sizes,
          const std::vector<int64_t>& strides, int64_t dim, int64_t dim_stride) {
  if (sizes.size() != strides.size())
    refuse("strides", "have " + std::to_string(sizes.size()) + " entries",
           std::to_string(strides.size()));
  if (dim < 1) refuse("dim", "be positive", std::to_string(dim));
  return vqk::make_rows(pointer<void>(data), parse_dtype(dtype), sizes.data(), strides.data(),
                        int(sizes.size()), dim, dim_stride);
}

vqk::Metric parse_metric(int metric) {
  if (metric != 0 && metric != 1)
    refuse("metric", "be 0 (l2) or 1 (cosine)", std::to_string(metric));
  return vqk::Metric(metric);
}

vqk::Estimator parse_estimator(int estimator) {
  if (estimator != 0 && estimator != 1)
    refuse("estimator", "be 0 (straight-through) or 1 (rotation)", std::to_string(estimator));
  return vqk::Estimator(estimator);
}

// Codes are numbered in 32 bits inside.
int64_t check_codes(int64_t num_codes) {
  if (num_codes < 1 || num_codes > std::numeric_limits<int32_t>::max())
    refuse("num_codes", "be in [1, 2147483647]", std::to_string(num_codes));
  return num_codes;
}

int check_threads(int threads) {
  if (threads < 1) refuse("threads", "be positive", std::to_string(threads));
  return threads;
}

const char* name_of(vqk::Dtype dtype) {
  switch (dtype) {
    case vqk::Dtype::float32:
      return "float32";
    case vqk::Dtype::float16:
      return "float16";
    case vqk::Dtype::bfloat16:
      return "bfloat16";
  }
  return "unknown";
}

const Rows& check_rows(const std::string& name, const Rows& rows, const Rows& x, vqk::Dtype dtype) {
  const auto shape = [](const Rows& r) {
    return "(" + std::to_string(r.count) + ", " + std::to_string(r.dim) + ")";
  };
  if (rows.count != x.count || rows.dim != x.dim)
    refuse(name, "have x's shape " + shape(x), shape(rows));
  if (rows.dtype != dtype)
    throw py::type_error(name + " must be " + name_of(dtype) + ", got " + name_of(rows.dtype));
  return rows;
}

void nearest_code(const Rows& x, uintptr_t codebook, int64_t num_codes, int metric,
                  uintptr_t indices, uintptr_t distances, int threads) {
  const vqk::NearestCode args{x,
                              pointer<const float>(codebook),
                              check_codes(num_codes),
                              parse_metric(metric),
                              pointer<int64_t>(indices),
                              pointer<float>(distances),
                              check_threads(threads)};
  const py::gil_scoped_release unlocked;
  vqk::nearest_code(args);
}

int64_t lookup(uintptr_t indices, uintptr_t codebook, int64_t num_codes, const Rows& out,
               int threads) {
  check_rows("out", out, out, vqk::Dtype::float32);
  const vqk::Lookup args{pointer<const int64_t>(indices), pointer<const float>(codebook),
                         check_codes(num_codes), out, check_threads(threads)};
  const py::gil_scoped_release unlocked;
  return vqk::lookup(args);
}

int64_t code_sums(const Rows& x, uintptr_t indices, uintptr_t mask, int64_t num_codes, bool unit,
                  bool skip_nonfinite, uintptr_t counts, uintptr_t sums, int threads) {
  const vqk::CodeSums args{x,
                           pointer<const int64_t>(indices),
                           pointer<const uint8_t>(mask),
                           check_codes(num_codes),
                           unit,
                           skip_nonfinite,
                           pointer<int64_t>(counts),
                           pointer<float>(sums),
                           check_threads(threads)};
  const py::gil_scoped_release unlocked;
  return vqk::code_sums(args);
}

void vq_forward(const Rows& x, uintptr_t codebook, int64_t num_codes, int metric, uintptr_t mask,
                uintptr_t indices, const Rows& quantized, uintptr_t mse, uintptr_t counts,
                uintptr_t sums, int threads) {
  const vqk::VqForward args{x,
                            pointer<const float>(codebook),
                            check_codes(num_codes),
                            parse_metric(metric),
                            pointer<const uint8_t>(mask),
                            pointer<int64_t>(indices),
                            check_rows("quantized", quantized, x, vqk::Dtype::float32),
                            pointer<float>(mse),
                            pointer<int64_t>(counts),
                            pointer<float>(sums),
                            check_threads(threads)};
  const py::gil_scoped_release unlocked;
  vqk::vq_forward(args);
}

void vq_backward(const Rows& x, const Rows& quantized, uintptr_t indices, int64_t num_codes,
                 int metric, int estimator, const Rows* grad_quantized, uintptr_t grad_loss,
                 double commitment_weight, double codebook_weight, const Rows* grad_x,
                 uintptr_t grad_codebook, int threads) {
  if (grad_quantized != nullptr) check_rows("grad_quantized", *grad_quantized, x, x.dtype);
  if (grad_x != nullptr) check_rows("grad_x", *grad_x, x, x.dtype);
  const vqk::VqBackward args{x,
                             check_rows("quantized", quantized, x, vqk::Dtype::float32),
                             pointer<const int64_t>(indices),
                             check_codes(num_codes),
                             parse_metric(metric),
                             parse_estimator(estimator),
                             grad_quantized,
                             pointer<const float>(grad_loss),
                             commitment_weight,
                             codebook_weight,
                             grad_x,
                             pointer<float>(grad_codebook),
                             check_threads(threads)};
  const py::gil_scoped_release unlocked;
  vqk::vq_backward(args);
}

double fma_peak(int threads, double seconds) {
  if (!(seconds > 0)) refuse("seconds", "be positive", std::to_string(seconds));
  const vqk::FmaPeak args{check_threads(threads), seconds};
  const py::gil_scoped_release unlocked;
  return vqk::fma_peak(args);
}

std::vector<std::string> isa_levels() {
  const char* names[vqk::max_isa_levels];
  return {names, names + vqk::isa_levels(names)};
}

py::dict build_info() {
  py::dict info;
  info["compiler"] = VQK_COMPILER;
  info["levels"] = py::make_tuple(VQK_LEVEL_NAMES);
  info["openmp"] = vqk::openmp_version();
  return info;
}

}  // namespace

PYBIND11_MODULE(_native, m) {
  m.doc() = "CPU kernels of vqkernels. Pointers are integers; the headers in csrc document them.";

  py::class_<Rows>(m, "Rows").def(py::init(&rows), py::arg("data"), py::arg("dtype"),
                                  py::arg("sizes"), py::arg("strides"), py::arg("dim"),
                                  py::arg("dim_stride"));

  m.def("nearest_code", &nearest_code, py::arg("x"), py::arg("codebook"), py::arg("num_codes"),
        py::arg("metric"), py::arg("indices"), py::arg("distances"), py::arg("threads"));
  m.def("lookup", &lookup, py::arg("indices"), py::arg("codebook"), py::arg("num_codes"),
        py::arg("out"), py::arg("threads"));
  m.def("code_sums", &code_sums, py::arg("x"), py::arg("indices"), py::arg("mask"),
        py::arg("num_codes"), py::arg("unit"), py::arg("skip_nonfinite"), py::arg("counts"),
        py::arg("sums"), py::arg("threads"));
  m.def("vq_forward", &vq_forward, py::arg("x"), py::arg("codebook"), py::arg("num_codes"),
        py::arg("metric"), py::arg("mask"), py::arg("indices"), py::arg("quantized"),
        py::arg("mse"), py::arg("counts"), py::arg("sums"), py::arg("threads"));
  m.def("vq_backward", &vq_backward, py::arg("x"), py::arg("quantized"), py::arg("indices"),
        py::arg("num_codes"), py::arg("metric"), py::arg("estimator"), py::arg("grad_quantized"),
        py::arg("grad_loss"), py::arg("commitment_weight"), py::arg("codebook_weight"),
        py::arg("grad_x"), py::arg("grad_codebook"), py::arg("threads"));

  m.def("fma_peak", &fma_peak, py::arg("threads"), py::arg("seconds"));
  m.def("isa", &vqk::isa);
  m.def("isa_levels", &isa_levels);
  m.def("force_isa", &vqk::force_isa, py::arg("name"));
  m.def("build_info", &build_info);
}
