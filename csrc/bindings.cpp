#include <pybind11/stl.h>

#include <vector>

#include "bindings/arguments.h"
#include "vqk/code_sums.h"
#include "vqk/fma_peak.h"
#include "vqk/isa.h"
#include "vqk/lookup.h"
#include "vqk/nearest_code.h"
#include "vqk/nearest_codes.h"
#include "vqk/prepare.h"
#include "vqk/pruning.h"
#include "vqk/vq_backward.h"
#include "vqk/vq_forward.h"

namespace {

using vqk::Rows;
using namespace vqk::bindings;

// A tensor's shape and strides, of which dimension `channel_dim` holds the D channels.
Rows rows(uintptr_t data, int dtype, const std::vector<int64_t>& shape,
          const std::vector<int64_t>& strides, int channel_dim) {
  if (dtype < 0 || dtype > 2)
    refuse("dtype", "be 0 (float32), 1 (float16) or 2 (bfloat16)", std::to_string(dtype));
  const int num_dims = int(shape.size());
  if (int(strides.size()) != num_dims)
    refuse("strides", "have " + std::to_string(num_dims) + " entries",
           std::to_string(strides.size()));
  if (channel_dim < 0 || channel_dim >= num_dims)
    refuse("channel_dim", "be in [0, " + std::to_string(num_dims) + ")",
           std::to_string(channel_dim));
  if (shape[channel_dim] < 1)
    refuse("shape", "have a positive number of channels", std::to_string(shape[channel_dim]));
  std::vector<int64_t> sizes(shape), steps(strides);
  sizes.erase(sizes.begin() + channel_dim);
  steps.erase(steps.begin() + channel_dim);
  return vqk::make_rows(pointer<void>(data), vqk::Dtype(dtype), sizes.data(), steps.data(),
                        num_dims - 1, shape[channel_dim], strides[channel_dim]);
}

int64_t prepared_bytes(int64_t num_codes, int64_t dim, int64_t cells) {
  return vqk::prepared_bytes(check_codes(num_codes), dim, check_cells(cells, num_codes));
}

int64_t partition_bytes(int64_t dim, int64_t cells) { return vqk::partition_bytes(dim, cells); }

int64_t suitable_cells(int64_t num_codes, int64_t dim) {
  return vqk::suitable_cells(check_codes(num_codes), dim);
}

vqk::Prepare prepare_arguments(uintptr_t codebook, int64_t num_codes, int64_t dim, int metric,
                               int64_t cells, uintptr_t out, int threads) {
  if (out % 64 != 0) refuse("out", "be aligned to 64 bytes", std::to_string(out));
  return {pointer<const float>(codebook), check_codes(num_codes),        dim,
          parse_metric(metric),           check_cells(cells, num_codes), pointer<void>(out),
          check_threads(threads)};
}

void prepare(uintptr_t codebook, int64_t num_codes, int64_t dim, int metric, int64_t cells,
             uintptr_t out, int threads) {
  const vqk::Prepare args =
      prepare_arguments(codebook, num_codes, dim, metric, cells, out, threads);
  const py::gil_scoped_release unlocked;
  vqk::prepare(args);
}

void partition(uintptr_t codebook, int64_t num_codes, int64_t dim, int64_t cells, uintptr_t out,
               int threads) {
  const vqk::Prepare args = prepare_arguments(codebook, num_codes, dim, 0, cells, out, threads);
  const py::gil_scoped_release unlocked;
  vqk::partition(args);
}

bool is_worn(std::pair<uintptr_t, int64_t> partition, int64_t dim) {
  return vqk::is_worn(parse_prepared(partition), dim);
}

void force_pruning(const std::string& choice) {
  const char* const names[] = {"auto", "never", "always"};
  for (int i = 0; i < 3; ++i)
    if (choice == names[i]) return vqk::force_pruning(vqk::Pruning(i));
  refuse("choice", "be auto, never or always", choice);
}

vqk::NearestCode search_arguments(const Rows& x, uintptr_t codebook, int64_t num_codes, int metric,
                                  std::pair<uintptr_t, int64_t> prepared, uintptr_t indices,
                                  uintptr_t distances, int threads) {
  return {x,
          pointer<const float>(codebook),
          check_codes(num_codes),
          parse_metric(metric),
          parse_prepared(prepared),
          pointer<int64_t>(indices),
          pointer<float>(distances),
          check_threads(threads)};
}

void nearest_code(const Rows& x, uintptr_t codebook, int64_t num_codes, int metric,
                  std::pair<uintptr_t, int64_t> prepared, uintptr_t indices, uintptr_t distances,
                  int threads) {
  const vqk::NearestCode args =
      search_arguments(x, codebook, num_codes, metric, prepared, indices, distances, threads);
  const py::gil_scoped_release unlocked;
  vqk::nearest_code(args);
}

double visited_share(const Rows& x, uintptr_t codebook, int64_t num_codes, int metric,
                     std::pair<uintptr_t, int64_t> prepared, int threads) {
  const vqk::NearestCode args =
      search_arguments(x, codebook, num_codes, metric, prepared, 0, 0, threads);
  const py::gil_scoped_release unlocked;
  return vqk::visited_share(args);
}

void nearest_codes(const Rows& x, uintptr_t codebook, int64_t num_codes, int metric, int64_t k,
                   uintptr_t indices, uintptr_t distances, int threads) {
  if (k < 1 || k > check_codes(num_codes))
    refuse("k", "be in [1, " + std::to_string(num_codes) + "]", std::to_string(k));
  const vqk::NearestCodes args{x,
                               pointer<const float>(codebook),
                               num_codes,
                               parse_metric(metric),
                               k,
                               pointer<int64_t>(indices),
                               pointer<float>(distances),
                               check_threads(threads)};
  const py::gil_scoped_release unlocked;
  vqk::nearest_codes(args);
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

void vq_forward(const Rows& x, uintptr_t codebook, int64_t num_codes, int metric,
                std::pair<uintptr_t, int64_t> prepared, uintptr_t given, uintptr_t mask,
                uintptr_t indices, const Rows& quantized, uintptr_t mse, uintptr_t counts,
                uintptr_t sums, int threads) {
  const vqk::VqForward args{x,
                            pointer<const float>(codebook),
                            check_codes(num_codes),
                            parse_metric(metric),
                            parse_prepared(prepared),
                            pointer<const int64_t>(given),
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
  info["CUDA"] = VQK_CUDA_BUILD;
  return info;
}

}  // namespace

PYBIND11_MODULE(_native, m) {
  m.doc() = "Kernels of vqkernels. Pointers are integers; the headers in csrc document them.";

  py::class_<Rows>(m, "Rows").def(py::init(&rows), py::arg("data"), py::arg("dtype"),
                                  py::arg("shape"), py::arg("strides"), py::arg("channel_dim"));

  m.def("suitable_cells", &suitable_cells, py::arg("num_codes"), py::arg("dim"));
  m.def("prepared_bytes", &prepared_bytes, py::arg("num_codes"), py::arg("dim"), py::arg("cells"));
  m.def("partition_bytes", &partition_bytes, py::arg("dim"), py::arg("cells"));
  m.def("partition", &partition, py::arg("codebook"), py::arg("num_codes"), py::arg("dim"),
        py::arg("cells"), py::arg("out"), py::arg("threads"));
  m.def("is_worn", &is_worn, py::arg("partition"), py::arg("dim"));
  m.def("visited_share", &visited_share, py::arg("x"), py::arg("codebook"), py::arg("num_codes"),
        py::arg("metric"), py::arg("prepared"), py::arg("threads"));
  m.def("force_pruning", &force_pruning, py::arg("choice"));
  m.def("prepare", &prepare, py::arg("codebook"), py::arg("num_codes"), py::arg("dim"),
        py::arg("metric"), py::arg("cells"), py::arg("out"), py::arg("threads"));
  m.def("nearest_code", &nearest_code, py::arg("x"), py::arg("codebook"), py::arg("num_codes"),
        py::arg("metric"), py::arg("prepared"), py::arg("indices"), py::arg("distances"),
        py::arg("threads"));
  m.def("nearest_codes", &nearest_codes, py::arg("x"), py::arg("codebook"), py::arg("num_codes"),
        py::arg("metric"), py::arg("k"), py::arg("indices"), py::arg("distances"),
        py::arg("threads"));
  m.def("lookup", &lookup, py::arg("indices"), py::arg("codebook"), py::arg("num_codes"),
        py::arg("out"), py::arg("threads"));
  m.def("code_sums", &code_sums, py::arg("x"), py::arg("indices"), py::arg("mask"),
        py::arg("num_codes"), py::arg("unit"), py::arg("skip_nonfinite"), py::arg("counts"),
        py::arg("sums"), py::arg("threads"));
  m.def("vq_forward", &vq_forward, py::arg("x"), py::arg("codebook"), py::arg("num_codes"),
        py::arg("metric"), py::arg("prepared"), py::arg("given"), py::arg("mask"),
        py::arg("indices"), py::arg("quantized"), py::arg("mse"), py::arg("counts"),
        py::arg("sums"), py::arg("threads"));
  m.def("vq_backward", &vq_backward, py::arg("x"), py::arg("quantized"), py::arg("indices"),
        py::arg("num_codes"), py::arg("metric"), py::arg("estimator"), py::arg("grad_quantized"),
        py::arg("grad_loss"), py::arg("commitment_weight"), py::arg("codebook_weight"),
        py::arg("grad_x"), py::arg("grad_codebook"), py::arg("threads"));

  vqk::bindings::define_state(m);
  m.def("fma_peak", &fma_peak, py::arg("threads"), py::arg("seconds"));
  vqk::bindings::define_residual(m);
  vqk::bindings::define_soft(m);
  vqk::bindings::define_fsq(m);
#ifdef VQK_HAS_CUDA
  vqk::bindings::define_cuda(m);
#endif

  m.def("isa", &vqk::isa);
  m.def("isa_levels", &isa_levels);
  m.def("force_isa", &vqk::force_isa, py::arg("name"));
  m.def("build_info", &build_info);
}
