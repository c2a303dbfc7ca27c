#pragma once

#include "vqk/advance.h"
#include "vqk/code_sums.h"
#include "vqk/fma_peak.h"
#include "vqk/fsq.h"
#include "vqk/lookup.h"
#include "vqk/nearest_code.h"
#include "vqk/nearest_codes.h"
#include "vqk/normalize_codes.h"
#include "vqk/observe.h"
#include "vqk/prepare.h"
#include "vqk/residual.h"
#include "vqk/residual_backward.h"
#include "vqk/sample_codes.h"
#include "vqk/soft_assign.h"
#include "vqk/soft_assign_backward.h"
#include "vqk/vq_backward.h"
#include "vqk/vq_forward.h"

namespace vqk {

// The ops of one instruction-set level.
struct Kernels {
  void (*nearest_code)(const NearestCode&);
  void (*nearest_codes)(const NearestCodes&);
  double (*visited_share)(const NearestCode&);
  int64_t (*prepared_bytes)(int64_t num_codes, int64_t dim, int64_t cells);
  void (*prepare)(const Prepare&);
  int64_t (*partition_bytes)(int64_t dim, int64_t cells);
  void (*partition)(const Prepare&);
  int64_t (*suitable_cells)(int64_t num_codes, int64_t dim);
  bool (*is_worn)(const Prepared&, int64_t dim);
  int64_t (*lookup)(const Lookup&);
  int64_t (*code_sums)(const CodeSums&);
  void (*vq_forward)(const VqForward&);
  void (*vq_backward)(const VqBackward&);
  void (*normalize_codes)(const NormalizeCodes&);
  void (*observe)(const Observe&);
  void (*advance)(const Advance&);
  double (*fma_peak)(const FmaPeak&);
  void (*residual)(const Residual&);
  void (*residual_backward)(const ResidualBackward&);
  void (*soft_assign)(const SoftAssign&);
  void (*soft_assign_backward)(const SoftAssignBackward&);
  void (*sample_codes)(const SampleCodes&);
  void (*fsq)(const Fsq&);
  void (*fsq_backward)(const FsqBackward&);
  int64_t (*fsq_lookup)(const FsqLookup&);
};

namespace portable {
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}

#if defined(VQK_LEVEL)
namespace VQK_LEVEL {
void nearest_code(const NearestCode& args);
void nearest_codes(const NearestCodes& args);
double visited_share(const NearestCode& args);
int64_t prepared_bytes(int64_t num_codes, int64_t dim, int64_t cells);
void prepare(const Prepare& args);
int64_t partition_bytes(int64_t dim, int64_t cells);
void partition(const Prepare& args);
int64_t suitable_cells(int64_t num_codes, int64_t dim);
bool is_worn(const Prepared& partition, int64_t dim);
int64_t lookup(const Lookup& args);
int64_t code_sums(const CodeSums& args);
void vq_forward(const VqForward& args);
void vq_backward(const VqBackward& args);
void normalize_codes(const NormalizeCodes& args);
void observe(const Observe& args);
void advance(const Advance& args);
double fma_peak(const FmaPeak& args);
void residual(const Residual& args);
void residual_backward(const ResidualBackward& args);
void soft_assign(const SoftAssign& args);
void soft_assign_backward(const SoftAssignBackward& args);
void sample_codes(const SampleCodes& args);
void fsq(const Fsq& args);
void fsq_backward(const FsqBackward& args);
int64_t fsq_lookup(const FsqLookup& args);
}  // namespace VQK_LEVEL
#endif

}  // namespace vqk
