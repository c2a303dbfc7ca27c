#include "exact.h"

#include "double8.h"

namespace vqk::VQK_LEVEL {

ExactSearch::ExactSearch(Metric exact_metric, int64_t exact_dim, const double* wide_row)
    : metric(exact_metric), dim(exact_dim), row(wide_row) {
  for (int lane = 0; lane < 8; ++lane) {
    score[lane] = -__builtin_inf();
    position[lane] = 0;
  }
}

void ExactSearch::add(const float* codes, int64_t first_position) {
  Double8 sum{};
  if (metric == Metric::l2) {
#pragma GCC unroll 4
    for (int64_t i = 0; i < dim; ++i) {
      const Double8 difference = splat(row[i]) - widen(codes + 8 * i);
      sum = sum + difference * difference;
    }
    sum = splat(0.0) - sum;
  } else {
#pragma GCC unroll 4
    for (int64_t i = 0; i < dim; ++i) sum = sum + splat(row[i]) * widen(codes + 8 * i);
  }
  alignas(64) double candidate[8];
  store(sum, candidate);
  for (int lane = 0; lane < 8; ++lane) {
    const bool better = candidate[lane] > score[lane];
    score[lane] = better ? candidate[lane] : score[lane];
    position[lane] = better ? first_position + lane : position[lane];
  }
}

// No branches on scores: which lane wins is random.
void ExactSearch::best(double* best_score, int64_t* best_position) const {
  const auto larger = [](double a, double b) { return a > b ? a : b; };
  const auto smaller = [](int64_t a, int64_t b) { return a < b ? a : b; };
  const double largest = larger(larger(larger(score[0], score[1]), larger(score[2], score[3])),
                                larger(larger(score[4], score[5]), larger(score[6], score[7])));
  int64_t attained[8];
  for (int lane = 0; lane < 8; ++lane)
    attained[lane] = score[lane] == largest ? position[lane] : INT64_MAX;
  *best_score = largest;
  *best_position =
      smaller(smaller(smaller(attained[0], attained[1]), smaller(attained[2], attained[3])),
              smaller(smaller(attained[4], attained[5]), smaller(attained[6], attained[7])));
}

}  // namespace vqk::VQK_LEVEL
