#include "vqk/soft_assign_backward.h"

#include "kernels.h"
#include "soft_rows.h"
#include "soft_sums.h"

namespace vqk::VQK_LEVEL {
namespace {

// Terms of the rows in a panel's lanes, and what their weights add up to.
struct LaneSums {
  alignas(64) float high[panel_codes], low[panel_codes], row[panel_codes], slope[panel_codes];
  double totals[panel_codes];
};

// sum over k of p_nk grad_usage_k, into `totals`.
void mean_grad_usage(const StreamedCodes& codes, const RowPanel& panel, const float* of_code,
                     LaneSums& lane) {
  for (int i = 0; i < panel_codes; ++i) lane.totals[i] = lane.row[i] = lane.slope[i] = 0.0f;
  for_each_code_block(codes, panel, [&](int64_t first, int64_t count) {
    weigh_rows_in_lanes(panel.logits, count, {lane.high, lane.low, lane.row, lane.slope},
                        of_code + first, lane.totals);
  });
}

// The gradient of the rows of a panel, into `grad`, (count, padded(D)).
//   sums: (pull_width(D), panel_codes) scratch
void grad_of_rows(const SoftFrame& frame, const StreamedCodes& codes, const RowPanel& panel,
                  const float* of_code, LaneSums& lane, double* sums, float* grad) {
  const int64_t dim = frame.dim, width = pull_width(dim);
  for (int i = 0; i < panel_codes; ++i) lane.totals[i] = 0.0;
  for (int64_t i = 0; i < width * panel_codes; ++i) sums[i] = 0.0;
  for_each_code_block(codes, panel, [&](int64_t first, int64_t count) {
    weigh_rows_in_lanes(panel.logits, count, {lane.high, lane.low, lane.row, lane.slope},
                        of_code + first, lane.totals);
    pull(panel.logits, count, codes.centred.data() + first * width, dim, sums);
  });
  const double factor = 2.0 * frame.sharpness / frame.temperature;
  for (int64_t r = 0; r < panel.count; ++r) {
    const bool counts = panel.constants[r] < __builtin_inf();
    const float* x = panel.tile + r * padded(dim);
    for (int64_t i = 0; i < dim; ++i) {
      const double own = lane.totals[r] * (double(x[i]) - frame.survey.shift[i]);
      grad[r * padded(dim) + i] = counts ? float(factor * (sums[i * panel_codes + r] - own)) : 0.0f;
    }
  }
}

void grad_of_codes(const SoftAssignBackward& args, const SoftFrame& frame, const float* of_code,
                   const float* row, const float* slope) {
  const int64_t dim = frame.dim, panel_sums = panel_codes * pull_width(dim);
  const int64_t panels = code_panels(args.num_codes);
  const Buffer<double> totals(panels * panel_codes), sums(panels * panel_sums);
  const SoftRows rows{args.x, args.mask, args.logsumexp, row, slope};
  sum_over_rows(frame, args.codebook, args.num_codes, rows, of_code, args.threads, totals.data(),
                sums.data());
  const double factor = 2.0 * frame.sharpness / frame.temperature;
  parallel_for(panels, args.threads, [&](int64_t p, int) {
    for (int64_t lane = 0; lane < panel_codes; ++lane) {
      const int64_t k = p * panel_codes + lane;
      if (k >= args.num_codes) return;
      const float* code = args.codebook + k * dim;
      const bool finite = all_finite(code, dim);
      for (int64_t i = 0; i < dim; ++i) {
        const double own = totals[k] * (double(code[i]) - frame.survey.shift[i]);
        const double pulled = sums[p * panel_sums + i * panel_codes + lane];
        args.grad_codebook[k * dim + i] = finite ? float(factor * (pulled - own)) : 0.0f;
      }
    }
  });
}

}  // namespace

void soft_assign_backward(const SoftAssignBackward& args) {
  const int64_t dim = args.x.dim, num_codes = args.num_codes;
  const SoftFrame frame(args.codebook, num_codes, dim, args.temperature, args.threads);
  const int64_t places = code_panels(num_codes) * panel_codes;
  const Buffer<float> of_code(places), row(args.x.count), slope(args.x.count);
  for (int64_t k = 0; k < places; ++k)
    of_code[k] = k < num_codes && args.grad_usage != nullptr ? args.grad_usage[k] : 0.0f;

  const StreamedCodes codes(frame, args.codebook, num_codes, args.grad_x != nullptr, args.threads);
  const int64_t sum_doubles = panel_codes * pull_width(dim);
  const int64_t grad_floats = args.grad_x != nullptr ? panel_codes * padded(dim) : 0;
  const Buffer<double> sums(args.threads * sum_doubles);
  const Buffer<float> grads(args.threads * grad_floats);
  for_each_row_panel(
      frame, args.x, args.mask, args.threads, [&](const RowPanel& panel, int worker) {
        LaneSums lane;
        for (int64_t r = 0; r < panel_codes; ++r) {
          const bool present = r < panel.count;
          split_normaliser(frame, present ? args.logsumexp[panel.first + r] : 0.0,
                           present ? panel.constants[r] : __builtin_inf(), lane.high + r,
                           lane.low + r);
          lane.totals[r] = 0.0;
        }
        if (args.grad_usage != nullptr) mean_grad_usage(codes, panel, of_code.data(), lane);
        for (int64_t r = 0; r < panel_codes; ++r) lane.row[r] = lane.slope[r] = 0.0f;
        for (int64_t r = 0; r < panel.count; ++r) {
          const int64_t n = panel.first + r;
          const double of_mean = args.grad_mean_logit == nullptr ? 0.0 : args.grad_mean_logit[n];
          const double of_normaliser =
              args.grad_logsumexp == nullptr ? 0.0 : args.grad_logsumexp[n];
          const double spread = 1.0 + (args.logsumexp[n] - args.mean_logit[n]);
          if (panel.constants[r] < __builtin_inf()) {
            lane.row[r] = float(of_normaliser + of_mean * spread - lane.totals[r]);
            lane.slope[r] = float(of_mean);
          }
          row[n] = lane.row[r];
          slope[n] = lane.slope[r];
        }
        if (args.grad_x == nullptr) return;
        float* grad = grads.data() + worker * grad_floats;
        grad_of_rows(frame, codes, panel, of_code.data(), lane, sums.data() + worker * sum_doubles,
                     grad);
        store_rows(*args.grad_x, panel.first, panel.count, grad);
      });
  if (args.grad_codebook != nullptr)
    grad_of_codes(args, frame, of_code.data(), row.data(), slope.data());
}

}  // namespace vqk::VQK_LEVEL
