#include "exact.h"

#include "bound.h"
#include "double8.h"
#include "float8.h"
#include "row_tiles.h"

namespace vqk::VQK_LEVEL {

ExactSearch::ExactSearch(Metric exact_metric, int64_t exact_dim, const double* wide_row)
    : metric(exact_metric), dim(exact_dim), row(wide_row) {
  for (int lane = 0; lane < 8; ++lane) {
    score[lane] = -__builtin_inf();
    position[lane] = 0;
  }
}

namespace {

// Signed scores of eight codes; their sums are eight chains of additions.
VQK_INLINE Double8 score_eight(Metric metric, int64_t dim, const double* row, const float* codes) {
  Double8 sum{};
  if (metric == Metric::l2) {
#pragma GCC unroll 4
    for (int64_t i = 0; i < dim; ++i) {
      const Double8 difference = splat(row[i]) - widen(codes + 8 * i);
      sum = sum + difference * difference;
    }
    return splat(0.0) - sum;
  }
#pragma GCC unroll 4
  for (int64_t i = 0; i < dim; ++i) sum = sum + splat(row[i]) * widen(codes + 8 * i);
  return sum;
}

}  // namespace

void ExactSearch::add(const float* codes, int64_t first_position) {
  alignas(64) double candidate[8];
  store(score_eight(metric, dim, row, codes), candidate);
  for (int lane = 0; lane < 8; ++lane) {
    const bool better = candidate[lane] > score[lane];
    score[lane] = better ? candidate[lane] : score[lane];
    position[lane] = better ? first_position + lane : position[lane];
  }
}

void scores_of_eight(Metric metric, int64_t dim, const double* row, const float* codes,
                     double* scores) {
  store(score_eight(metric, dim, row, codes), scores);
}

int best_of_eight(Metric metric, int64_t dim, const double* row, const float* codes,
                  double* best_score) {
  const Double8 score = score_eight(metric, dim, row, codes);
  *best_score = largest_lane(score);
  return __builtin_ctz(lanes_equal(score, *best_score));
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

// With u = 2^-24, a float32 sum of D squares of rounded differences is within (D + 3) u of the real
// one, relative, plus D 2^-149 for underflow. F is far closer. So a code is the nearest where all
// others are above the smallest sum times (1 + e) / (1 - e), e = (D + 3) u, and 1 + 4 alpha is
// more.
int certain_of_eight(int64_t dim, const float* row, const float* codes) {
  constexpr int chains = 4;
  Float8 sums[chains] = {};
  int64_t i = 0;
  for (; i + chains <= dim; i += chains)
#pragma GCC unroll 4
    for (int c = 0; c < chains; ++c) {
      const Float8 difference = load_float8(codes + 8 * (i + c)) - row[i + c];
      sums[c] += difference * difference;
    }
  for (; i < dim; ++i) {
    const Float8 difference = load_float8(codes + 8 * i) - row[i];
    sums[0] += difference * difference;
  }
  const Float8 sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  const double smallest = smallest_lane(sum);
  const float limit = float(smallest * (1.0 + 4.0 * bound_alpha(dim)) + double(dim) * 0x1p-140);
  const unsigned close = lanes_not_above(sum, limit);
  return close != 0 && (close & (close - 1)) == 0 ? __builtin_ctz(close) : -1;
}

namespace {

constexpr int pair_block = 8;

// F of pair_block pairs of a row with a code, (D,) each. Each sum is one chain of additions;
// several side by side hide their latency.
VQK_INLINE void score_pairs(Metric metric, int64_t dim, const float* const* rows,
                            const float* const* codes, double* scores) {
  double sum[pair_block] = {};
  if (metric == Metric::l2) {
    for (int64_t i = 0; i < dim; ++i)
#pragma GCC unroll 8
      for (int p = 0; p < pair_block; ++p) {
        const double difference = double(rows[p][i]) - double(codes[p][i]);
        sum[p] += difference * difference;
      }
  } else {
    for (int64_t i = 0; i < dim; ++i)
#pragma GCC unroll 8
      for (int p = 0; p < pair_block; ++p) sum[p] += double(rows[p][i]) * double(codes[p][i]);
  }
  for (int p = 0; p < pair_block; ++p) scores[p] = sum[p];
}

}  // namespace

double exact_score(Metric metric, int64_t dim, const float* row, const float* code) {
  double sum = 0.0;
  for (int64_t i = 0; i < dim; ++i) {
    const double value = row[i], difference = value - double(code[i]);
    sum += metric == Metric::l2 ? difference * difference : value * double(code[i]);
  }
  return metric == Metric::l2 ? 0.0 - sum : sum;
}

void exact_distances(Metric metric, int64_t dim, const float* x, const float* codebook,
                     const int64_t* rows, int64_t count, const int64_t* indices, float* distances) {
  for (int64_t first = 0; first < count; first += pair_block) {
    const float *left[pair_block], *right[pair_block];
    for (int64_t p = 0; p < pair_block; ++p) {
      const int64_t r = rows[first + p < count ? first + p : count - 1];
      left[p] = x + r * padded(dim);
      right[p] = codebook + indices[r] * dim;
    }
    double scores[pair_block];
    score_pairs(metric, dim, left, right, scores);
    for (int64_t p = 0; p < pair_block && first + p < count; ++p)
      distances[rows[first + p]] = float(scores[p]);
  }
}

}  // namespace vqk::VQK_LEVEL
