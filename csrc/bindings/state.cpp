#include <limits>

#include "arguments.h"
#include "vqk/advance.h"
#include "vqk/normalize_codes.h"
#include "vqk/observe.h"
#include "vqk/sample_rows.h"

namespace vqk::bindings {
namespace {

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
             uintptr_t pending_steps, uintptr_t clock, uintptr_t idle, uintptr_t revived,
             uintptr_t frozen, int64_t num_codes, int64_t dim, int64_t num_candidates, double decay,
             double epsilon, int64_t steps_due, bool unit, double threshold, int64_t idle_limit,
             int64_t revive_every, int threads) {
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
                          pointer<int64_t>(idle),
                          pointer<int64_t>(revived),
                          pointer<const int64_t>(frozen),
                          check_codes(num_codes),
                          dim,
                          num_candidates,
                          decay,
                          epsilon,
                          steps_due,
                          unit,
                          threshold,
                          idle_limit,
                          revive_every,
                          check_threads(threads)};
  const py::gil_scoped_release unlocked;
  vqk::advance(args);
}

}  // namespace

void define_state(py::module_& m) {
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
        py::arg("pending_steps"), py::arg("clock"), py::arg("idle"), py::arg("revived"),
        py::arg("frozen"), py::arg("num_codes"), py::arg("dim"), py::arg("num_candidates"),
        py::arg("decay"), py::arg("epsilon"), py::arg("steps_due"), py::arg("unit"),
        py::arg("threshold"), py::arg("idle_limit"), py::arg("revive_every"), py::arg("threads"));
}

}  // namespace vqk::bindings
