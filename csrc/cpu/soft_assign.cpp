#include "vqk/soft_assign.h"

#include <cmath>

#include "kernels.h"
#include "soft_rows.h"
#include "soft_sums.h"

namespace vqk::VQK_LEVEL {
namespace {

constexpr float lowest = -3.40282347e38f;

// Per lane, over the codes so far: the largest logit, and the sums of exp(t) and t exp(t) with
// t = logit - largest.
struct Running {
  Vec largest[panel_vectors], total[panel_vectors], weighted[panel_vectors];
};

void start(Running& running) {
  for (int v = 0; v < panel_vectors; ++v) {
    running.largest[v] = splat(lowest);
    running.total[v] = running.weighted[v] = splat(0.0f);
  }
}

// One block of the online softmax (arXiv 1805.02867): one rescaling for all of its codes.
void add_block(const float* logits, int64_t count, Running& running) {
  for (int v = 0; v < panel_vectors; ++v) {
    const float* logit = logits + v * lanes;
    Vec largest = running.largest[v];
    for (int64_t s = 0; s < count; ++s) largest = maximum(load(logit + s * panel_codes), largest);
    const Vec step = maximum(running.largest[v] - largest, splat(exp_floor));
    const Vec shrink = exponential(step);
    Vec total = splat(0.0f), weighted = splat(0.0f);
    for (int64_t s = 0; s < count; ++s) {
      const Vec t = maximum(load(logit + s * panel_codes) - largest, splat(exp_floor));
      const Vec e = exponential(t);
      total = total + e;
      weighted = multiply_add(e, t, weighted);
    }
    const Vec moved = multiply_add(step, running.total[v], running.weighted[v]);
    running.weighted[v] = multiply_add(shrink, moved, weighted);
    running.total[v] = multiply_add(shrink, running.total[v], total);
    running.largest[v] = largest;
  }
}

void finish(const RowPanel& panel, const Running& running, const SoftAssign& args) {
  alignas(64) float largest[panel_codes], total[panel_codes], weighted[panel_codes];
  for (int v = 0; v < panel_vectors; ++v) {
    store(largest + v * lanes, running.largest[v]);
    store(total + v * lanes, running.total[v]);
    store(weighted + v * lanes, running.weighted[v]);
  }
  for (int64_t r = 0; r < panel.count; ++r) {
    const double constant = panel.constants[r], sum = total[r], peak = largest[r];
    const bool counts = constant < __builtin_inf() && sum > 0.0;
    args.logsumexp[panel.first + r] = counts ? peak + std::log(sum) - constant : 0.0;
    args.mean_logit[panel.first + r] = counts ? peak + double(weighted[r]) / sum - constant : 0.0;
  }
}

}  // namespace

void soft_assign(const SoftAssign& args) {
  const int64_t num_codes = args.num_codes;
  const SoftFrame frame(args.codebook, num_codes, args.x.dim, args.temperature, args.threads);
  const StreamedCodes codes(frame, args.codebook, num_codes, false, args.threads);
  for_each_row_panel(frame, args.x, args.mask, args.threads, [&](const RowPanel& panel, int) {
    Running running;
    start(running);
    for_each_code_block(codes, panel,
                        [&](int64_t, int64_t count) { add_block(panel.logits, count, running); });
    finish(panel, running, args);
  });
  if (args.usage == nullptr) return;

  const int64_t places = code_panels(num_codes) * panel_codes;
  const Buffer<float> of_code(places);
  const Buffer<double> totals(places);
  for (int64_t k = 0; k < places; ++k) of_code[k] = 0.0f;
  const SoftRows rows{args.x, args.mask, args.logsumexp, nullptr, nullptr};
  sum_over_rows(frame, args.codebook, num_codes, rows, of_code.data(), args.threads, totals.data(),
                nullptr);
  for (int64_t k = 0; k < num_codes; ++k) args.usage[k] = float(totals[k]);
}

}  // namespace vqk::VQK_LEVEL
