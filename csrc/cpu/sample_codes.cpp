#include "vqk/sample_codes.h"

#include "kernels.h"
#include "soft_rows.h"

namespace vqk::VQK_LEVEL {
namespace {

// One block of codes from number `first`: a code is taken while at most `left` has been summed
// before it. Adds the block's sum to `before`.
void take_codes(const float* logits, int64_t first, int64_t count, const float* high,
                const float* low, const double* uniform, double* before, int32_t* taken) {
  alignas(64) float left[panel_codes], sum[panel_codes];
  for (int i = 0; i < panel_codes; ++i) left[i] = float(uniform[i] - before[i]);
  for (int v = 0; v < panel_vectors; ++v) {
    const int at = v * lanes;
    Vec running = splat(0.0f);
    IntVec chosen = load(taken + at);
    for (int64_t s = 0; s < count; ++s) {
      const Vec logit = load(logits + s * panel_codes + at);
      const Vec p =
          exponential(not_above_zero(below_normaliser(logit, load(high + at), load(low + at))));
      const IntVec here = select_greater(p, splat(0.0f), splat(int32_t(first + s)), chosen);
      chosen = select_greater(running, load(left + at), chosen, here);
      running = running + p;
    }
    store(taken + at, chosen);
    store(sum + at, running);
  }
  for (int i = 0; i < panel_codes; ++i) before[i] += double(sum[i]);
}

}  // namespace

void sample_codes(const SampleCodes& args) {
  const SoftFrame frame(args.codebook, args.num_codes, args.x.dim, args.temperature, args.threads);
  const StreamedCodes codes(frame, args.codebook, args.num_codes, false, args.threads);
  for_each_row_panel(frame, args.x, nullptr, args.threads, [&](const RowPanel& panel, int) {
    alignas(64) float high[panel_codes], low[panel_codes];
    alignas(64) int32_t taken[panel_codes];
    double uniform[panel_codes], before[panel_codes];
    for (int64_t r = 0; r < panel_codes; ++r) {
      const bool present = r < panel.count;
      split_normaliser(frame, present ? args.logsumexp[panel.first + r] : 0.0,
                       present ? panel.constants[r] : __builtin_inf(), high + r, low + r);
      uniform[r] = present ? args.uniform[panel.first + r] : 0.5;
      before[r] = 0.0;
      taken[r] = 0;
    }
    for_each_code_block(codes, panel, [&](int64_t first, int64_t count) {
      take_codes(panel.logits, first, count, high, low, uniform, before, taken);
    });
    for (int64_t r = 0; r < panel.count; ++r) args.indices[panel.first + r] = taken[r];
  });
}

}  // namespace vqk::VQK_LEVEL
