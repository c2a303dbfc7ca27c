#pragma once

#include <pybind11/pybind11.h>

#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

#include "vqk/estimator.h"
#include "vqk/metric.h"
#include "vqk/prepare.h"
#include "vqk/rows.h"

// What the files that bind ops share: conversions and checks.
namespace vqk::bindings {

namespace py = pybind11;

template <class T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

[[noreturn]] inline void refuse(const std::string& argument, const std::string& contract,
                                const std::string& value) {
  throw std::invalid_argument(argument + " must " + contract + ", got " + value);
}

inline Metric parse_metric(int metric) {
  if (metric != 0 && metric != 1)
    refuse("metric", "be 0 (l2) or 1 (cosine)", std::to_string(metric));
  return Metric(metric);
}

inline Estimator parse_estimator(int estimator) {
  if (estimator != 0 && estimator != 1)
    refuse("estimator", "be 0 (straight-through) or 1 (rotation)", std::to_string(estimator));
  return Estimator(estimator);
}

// Codes are numbered in 32 bits inside.
inline int64_t check_codes(int64_t num_codes) {
  if (num_codes < 1 || num_codes > std::numeric_limits<int32_t>::max())
    refuse("num_codes", "be in [1, 2147483647]", std::to_string(num_codes));
  return num_codes;
}

inline int64_t check_cells(int64_t cells, int64_t num_codes) {
  if (cells < 0 || cells > num_codes)
    refuse("cells", "be in [0, " + std::to_string(num_codes) + "]", std::to_string(cells));
  return cells;
}

inline int check_threads(int threads) {
  if (threads < 1) refuse("threads", "be positive", std::to_string(threads));
  return threads;
}

// (address, bytes); the empty pair is no prepared codebook. A block that is not aligned is left
// unused, which only costs time.
inline Prepared parse_prepared(const std::pair<uintptr_t, int64_t>& prepared) {
  if (prepared.first % 64 != 0) return {nullptr, 0};
  return {pointer<const void>(prepared.first), prepared.second};
}

inline const char* name_of(Dtype dtype) {
  switch (dtype) {
    case Dtype::float32:
      return "float32";
    case Dtype::float16:
      return "float16";
    case Dtype::bfloat16:
      return "bfloat16";
  }
  return "unknown";
}

inline const Rows& check_rows(const std::string& name, const Rows& rows, const Rows& x,
                              Dtype dtype) {
  const auto shape = [](const Rows& r) {
    return "(" + std::to_string(r.count) + ", " + std::to_string(r.dim) + ")";
  };
  if (rows.count != x.count || rows.dim != x.dim)
    refuse(name, "have x's shape " + shape(x), shape(rows));
  if (rows.dtype != dtype)
    throw py::type_error(name + " must be " + name_of(dtype) + ", got " + name_of(rows.dtype));
  return rows;
}

// normalize_codes, sample_rows, observe and advance.
void define_state(py::module_& m);

// residual and residual_backward.
void define_residual(py::module_& m);

// soft_assign, soft_assign_backward and sample_codes.
void define_soft(py::module_& m);

// fsq, fsq_backward and fsq_lookup.
void define_fsq(py::module_& m);

// The submodule `cuda`; in builds with CUDA only.
void define_cuda(py::module_& m);

}  // namespace vqk::bindings
