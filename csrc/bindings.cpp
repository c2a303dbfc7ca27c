#include <pybind11/stl.h>

#include <vector>

#include "bindings/arguments.h"
#include "vqk/advance.h"
#include "vqk/code_sums.h"
#include "vqk/isa.h"
#include "vqk/lookup.h"
#include "vqk/nearest_code.h"
#include "vqk/normalize_codes.h"
#include "vqk/observe.h"
#include "vqk/prepare.h"
#include "vqk/sample_rows.h"
#include "vqk/vq_backward.h"
#include "vqk/vq_forward.h"

namespace {

using vqk::Rows;
using namespace vqk::bindings;

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

int64_t prepared_bytes(int64_t num_codes, int64_t dim) {
  return vqk::prepared_bytes(check_codes(num_codes), dim);
}

void prepare(uintptr_t codebook, int64_t num_codes, int64_t dim, int metric, uintptr_t out,
             int threads) {
  if (out % 64 != 0) refuse("out", "be aligned to 64 bytes", std::to_string(out));
  const vqk::Prepare args{
      pointer<const float>(codebook), check_codes(num_codes), dim,
      parse_metric(metric),           pointer<void>(out),     check_threads(threads)};
  const py::gil_scoped_release unlocked;
  vqk::prepare(args);
}

// (address, bytes); the empty pair is no prepared codebook. A block that is not aligned is left
// unused, which only costs time.
vqk::Prepared parse_prepared(const std::pair<uintptr_t, int64_t>& prepared) {
  if (prepared.first % 64 != 0) return {nullptr, 0};
  return {pointer<const void>(prepared.first), prepared.second};
}

void nearest_code(const Rows& x, uintptr_t codebook, int64_t num_codes, int metric,
                  std::pair<uintptr_t, int64_t> prepared, uintptr_t indices, uintptr_t distances,
                  int threads) {
  const vqk::NearestCode args{x,
                              pointer<const float>(codebook),
                              check_codes(num_codes),
                              parse_metric(metric),
                              parse_prepared(prepared),
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

void vq_forward(const Rows& x, uintptr_t codebook, int64_t num_codes, int metric,
                std::pair<uintptr_t, int64_t> prepared, uintptr_t mask, uintptr_t indices,
                const Rows& quantized, uintptr_t mse, uintptr_t counts, uintptr_t sums,
                int threads) {
  const vqk::VqForward args{x,
                            pointer<const float>(codebook),
                            check_codes(num_codes),
                            parse_metric(metric),
                            parse_prepared(prepared),
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

void normalize_codes(const Rows& codebook, uintptr_t unit, uintptr_t norms, int threads) {
  const vqk::NormalizeCodes args{codebook, pointer<float>(unit), pointer<double>(norms),
                                 check_threads(threads)};
  const py::gil_scoped_release unlocked;
  vqk::normalize_codes(args);
}

void sample_rows(const Rows& x, uintptr_t mask, uintptr_t clock, int64_t count, int64_t seed,
                 uintptr_t rows, uintptr_t found) {
  if (x.count < 1) refuse("x", "have a row", "none");
  if (count < 1 || count > std::numeric_limits<int32_t>::max())
    refuse("count", "be in [1, 2147483647]", std::to_string(count));
  const vqk::SampleRows args{
      x,    pointer<const uint8_t>(mask), pointer<const int64_t>(clock), count,
      seed, pointer<float>(rows),         pointer<int64_t>(found)};
  const py::gil_scoped_release unlocked;
  vqk::sample_rows(args);
}

void observe(uintptr_t pending_counts, uintptr_t pending_sums, uintptr_t pending_rows,
             uintptr_t pending_steps, uintptr_t counts, uintptr_t sums, uintptr_t rows,
             uintptr_t found, int64_t num_codes, int64_t dim, int64_t num_rows, int threads) {
  const vqk::Observe args{pointer<float>(pending_counts),
                          pointer<float>(pending_sums),
                          pointer<float>(pending_rows),
                          pointer<int64_t>(pending_steps),
                          pointer<const int64_t>(counts),
                          pointer<const float>(sums),
                          pointer<const float>(rows),
                          pointer<const int64_t>(found),
                          check_codes(num_codes),
                          dim,
                          num_rows,
                          check_threads(threads)};
  const py::gil_scoped_release unlocked;
  vqk::observe(args);
}

void advance(uintptr_t codebook, uintptr_t cluster_size, uintptr_t embed_sum,
             uintptr_t pending_counts, uintptr_t pending_sums, uintptr_t candidates,
             uintptr_t pending_steps, uintptr_t clock, int64_t num_codes, int64_t dim,
             int64_t num_candidates, double decay, double epsilon, int64_t steps_due, bool unit,
             double threshold, int64_t revive_every, int threads) {
  if (candidates != 0 && num_candidates < 1)
    refuse("num_candidates", "be positive", std::to_string(num_candidates));
  if (revive_every < 1) refuse("revive_every", "be positive", std::to_string(revive_every));
  const vqk::Advance args{pointer<float>(codebook),
                          pointer<float>(cluster_size),
                          pointer<float>(embed_sum),
                          pointer<float>(pending_counts),
                          pointer<float>(pending_sums),
                          pointer<const float>(candidates),
                          pointer<int64_t>(pending_steps),
                          pointer<int64_t>(clock),
                          check_codes(num_codes),
                          dim,
                          num_candidates,
                          decay,
                          epsilon,
                          steps_due,
                          unit,
                          threshold,
                          revive_every,
                          check_threads(threads)};
  const py::gil_scoped_release unlocked;
  vqk::advance(args);
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

  m.def("prepared_bytes", &prepared_bytes, py::arg("num_codes"), py::arg("dim"));
  m.def("prepare", &prepare, py::arg("codebook"), py::arg("num_codes"), py::arg("dim"),
        py::arg("metric"), py::arg("out"), py::arg("threads"));
  m.def("nearest_code", &nearest_code, py::arg("x"), py::arg("codebook"), py::arg("num_codes"),
        py::arg("metric"), py::arg("prepared"), py::arg("indices"), py::arg("distances"),
        py::arg("threads"));
  m.def("lookup", &lookup, py::arg("indices"), py::arg("codebook"), py::arg("num_codes"),
        py::arg("out"), py::arg("threads"));
  m.def("code_sums", &code_sums, py::arg("x"), py::arg("indices"), py::arg("mask"),
        py::arg("num_codes"), py::arg("unit"), py::arg("skip_nonfinite"), py::arg("counts"),
        py::arg("sums"), py::arg("threads"));
  m.def("vq_forward", &vq_forward, py::arg("x"), py::arg("codebook"), py::arg("num_codes"),
        py::arg("metric"), py::arg("prepared"), py::arg("mask"), py::arg("indices"),
        py::arg("quantized"), py::arg("mse"), py::arg("counts"), py::arg("sums"),
        py::arg("threads"));
  m.def("vq_backward", &vq_backward, py::arg("x"), py::arg("quantized"), py::arg("indices"),
        py::arg("num_codes"), py::arg("metric"), py::arg("estimator"), py::arg("grad_quantized"),
        py::arg("grad_loss"), py::arg("commitment_weight"), py::arg("codebook_weight"),
        py::arg("grad_x"), py::arg("grad_codebook"), py::arg("threads"));

  m.def("normalize_codes", &normalize_codes, py::arg("codebook"), py::arg("unit"), py::arg("norms"),
        py::arg("threads"));
  m.def("sample_rows", &sample_rows, py::arg("x"), py::arg("mask"), py::arg("clock"),
        py::arg("count"), py::arg("seed"), py::arg("rows"), py::arg("found"));
  m.def("observe", &observe, py::arg("pending_counts"), py::arg("pending_sums"),
        py::arg("pending_rows"), py::arg("pending_steps"), py::arg("counts"), py::arg("sums"),
        py::arg("rows"), py::arg("found"), py::arg("num_codes"), py::arg("dim"),
        py::arg("num_rows"), py::arg("threads"));
  m.def("advance", &advance, py::arg("codebook"), py::arg("cluster_size"), py::arg("embed_sum"),
        py::arg("pending_counts"), py::arg("pending_sums"), py::arg("candidates"),
        py::arg("pending_steps"), py::arg("clock"), py::arg("num_codes"), py::arg("dim"),
        py::arg("num_candidates"), py::arg("decay"), py::arg("epsilon"), py::arg("steps_due"),
        py::arg("unit"), py::arg("threshold"), py::arg("revive_every"), py::arg("threads"));

  vqk::bindings::define_residual(m);

  m.def("isa", &vqk::isa);
  m.def("isa_levels", &isa_levels);
  m.def("force_isa", &vqk::force_isa, py::arg("name"));
  m.def("build_info", &build_info);
}
