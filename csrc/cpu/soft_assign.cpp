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
  alignas(64) float largest[panel_codes];
  double total[panel_codes], weighted[panel_codes];
};

void start(Running& running) {
  for (int i = 0; i < panel_codes; ++i) {
    running.largest[i] = lowest;
    running.total[i] = running.weighted[i] = 0.0;
  }
}

// One block of the online softmax (arXiv 1805.02867): one rescaling for all of its codes. Sums are
// those of tiles first, which loses less than one long chain.
void add_block(const float* logits, int64_t count, Running& running) {
  alignas(64) float step[panel_codes], shrink[panel_codes], sum[panel_codes], product[panel_codes];
  for (int v = 0; v < panel_vectors; ++v) {
    const float* logit = logits + v * lanes;
    const Vec before = load(running.largest + v * lanes);
    Vec largest = before;
    for (int64_t s = 0; s < count; ++s) largest = maximum(load(logit + s * panel_codes), largest);
    const Vec moved = maximum(before - largest, splat(exp_floor));
    store(running.largest + v * lanes, largest);
    store(step + v * lanes, moved);
    store(shrink + v * lanes, exponential(moved));
    Vec total = splat(0.0f), weighted = splat(0.0f);
    for (int64_t tile = 0; tile < count; tile += tile_rows) {
      const int64_t end = count < tile + tile_rows ? count : tile + tile_rows;
      Vec tile_total = splat(0.0f), tile_weighted = splat(0.0f);
      for (int64_t s = tile; s < end; ++s) {
        const Vec t = maximum(load(logit + s * panel_codes) - largest, splat(exp_floor));
        const Vec e = exponential(t);
        tile_total = tile_total + e;
        tile_weighted = multiply_add(e, t, tile_weighted);
      }
      total = total + tile_total;
      weighted = weighted + tile_weighted;
    }
    store(sum + v * lanes, total);
    store(product + v * lanes, weighted);
  }
  for (int i = 0; i < panel_codes; ++i) {
    const double moved = running.weighted[i] + double(step[i]) * running.total[i];
    running.weighted[i] = double(shrink[i]) * moved + double(product[i]);
    running.total[i] = double(shrink[i]) * running.total[i] + double(sum[i]);
  }
}

void finish(const SoftFrame& frame, const RowPanel& panel, const Running& running,
            const SoftAssign& args) {
  for (int64_t r = 0; r < panel.count; ++r) {
    const double total = running.total[r];
    const bool counts = panel.constants[r] < __builtin_inf() && total > 0.0;
    const double peak = frame.sharpness * (double(running.largest[r]) - panel.constants[r]);
    args.logsumexp[panel.first + r] = counts ? peak + std::log(total) : 0.0;
    args.mean_logit[panel.first + r] = counts ? peak + running.weighted[r] / total : 0.0;
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
    finish(frame, panel, running, args);
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
