#include "vqk/advance.h"

#include "kernels.h"
#include "memory.h"
#include "parallel.h"
#include "vqk/normalize_codes.h"

namespace vqk::VQK_LEVEL {
namespace {

constexpr int32_t alive = -1;

// _numerics.fixed_sum: the second half is added to the first until one value is left.
float fixed_sum(const float* values, int64_t count, float* tree) {
  int64_t half = 1;
  while (half < count) half *= 2;
  for (int64_t i = 0; i < half; ++i) tree[i] = i < count ? values[i] : 0.0f;
  for (half /= 2; half > 0; half /= 2)
    for (int64_t i = 0; i < half; ++i) tree[i] += tree[half + i];
  return tree[0];
}

int64_t tree_size(int64_t count) {
  int64_t size = 1;
  while (size < count) size *= 2;
  return size;
}

bool is_finite(const float* row, int64_t dim) {
  float nothing = 0.0f;  // NaN once an element is not finite
  for (int64_t i = 0; i < dim; ++i) nothing += row[i] * 0.0f;
  return nothing == 0.0f;
}

bool is_frozen(const Advance& args, int64_t k) {
  return args.frozen != nullptr && args.frozen[k] != 0;
}

// The moving average of the rows per code, and how long it has been idle; what was pending is
// cleared.
void move_sizes(const Advance& args) {
  const float keep = float(args.decay), take = float(1.0 - args.decay);
  int64_t rows = 0;
  for (int64_t k = 0; k < args.num_codes; ++k) rows += int64_t(args.pending_counts[k]);
  for (int64_t k = 0; k < args.num_codes; ++k) {
    const float count = args.pending_counts[k];
    args.cluster_size[k] = keep * args.cluster_size[k] + take * count;
    if (args.idle != nullptr) args.idle[k] = count > 0.0f ? 0 : args.idle[k] + rows;
    args.pending_counts[k] = 0.0f;
  }
}

// The moving averages of codes [first, last) and the codes that follow from them.
void move_codes(const Advance& args, float mass, int64_t first, int64_t last) {
  const float keep = float(args.decay), take = float(1.0 - args.decay);
  const float epsilon = float(args.epsilon);
  const float total_mass = mass + float(double(args.num_codes) * args.epsilon);
  for (int64_t k = first; k < last; ++k) {
    float* sum = args.embed_sum + k * args.dim;
    float* pending = args.pending_sums + k * args.dim;
    float* code = args.codebook + k * args.dim;
    const float smoothed = (args.cluster_size[k] + epsilon) / total_mass * mass;
    for (int64_t i = 0; i < args.dim; ++i) {
      sum[i] = keep * sum[i] + take * pending[i];
      pending[i] = 0.0f;
    }
    if (smoothed > 0.0f && !is_frozen(args, k))
      for (int64_t i = 0; i < args.dim; ++i) code[i] = sum[i] / smoothed;
  }
}

bool is_dead(const Advance& args, float limit, int64_t k) {
  const bool idle = args.idle != nullptr && args.idle_limit > 0 && args.idle[k] >= args.idle_limit;
  return (idle || args.cluster_size[k] < limit) && !is_frozen(args, k);
}

// candidate[k]: the row that replaces code k. The j-th dead code has turn j, and its turn passes
// where that row is not finite.
void choose_dead(const Advance& args, float limit, int32_t* candidate) {
  int64_t turn = 0;
  for (int64_t k = 0; k < args.num_codes; ++k) {
    candidate[k] = alive;
    if (!is_dead(args, limit, k)) continue;
    const int64_t row = turn++ % args.num_candidates;
    if (is_finite(args.candidates + row * args.dim, args.dim)) candidate[k] = int32_t(row);
  }
}

void revive(const Advance& args, float limit, int64_t k, int64_t row) {
  const float* from = args.candidates + row * args.dim;
  args.cluster_size[k] = limit;
  if (args.idle != nullptr) args.idle[k] = 0;
  if (args.revived != nullptr) ++*args.revived;
  for (int64_t i = 0; i < args.dim; ++i) args.codebook[k * args.dim + i] = from[i];
  if (args.embed_sum != nullptr)
    for (int64_t i = 0; i < args.dim; ++i) args.embed_sum[k * args.dim + i] = from[i] * limit;
}

// Run by run, so that a frozen code between two of them keeps its bits.
void normalize(const Advance& args) {
  const Buffer<double> norms(args.num_codes);
  for (int64_t first = 0, last = 0; first < args.num_codes; first = last + 1) {
    for (last = first; last < args.num_codes && !is_frozen(args, last);) ++last;
    const int64_t count = last - first;
    if (count == 0) continue;
    float* codes = args.codebook + first * args.dim;
    const Rows rows{codes, Dtype::float32, 1, {count}, {args.dim}, count, args.dim, 1};
    normalize_codes({rows, codes, norms.data(), args.threads});
  }
}

}  // namespace

void advance(const Advance& args) {
  if (*args.pending_steps < args.steps_due) return;
  *args.pending_steps = 0;
  ++*args.clock;
  move_sizes(args);
  const Buffer<float> tree(tree_size(args.num_codes));
  const float mass = fixed_sum(args.cluster_size, args.num_codes, tree.data());
  if (args.embed_sum != nullptr) {
    constexpr int64_t block_elements = 1 << 14;
    const int64_t block = block_elements / args.dim + 1;
    parallel_for((args.num_codes + block - 1) / block, args.threads, [&](int64_t b, int) {
      const int64_t last = (b + 1) * block;
      move_codes(args, mass, b * block, last < args.num_codes ? last : args.num_codes);
    });
    if (args.unit) normalize(args);
  }
  if (args.candidates == nullptr || *args.clock % args.revive_every != 0) return;

  const float mean = mass / float(4 * args.num_codes), threshold = float(args.threshold);
  const float limit = mean > threshold ? threshold : mean;
  const Buffer<int32_t> candidate(args.num_codes);
  choose_dead(args, limit, candidate.data());
  for (int64_t k = 0; k < args.num_codes; ++k)
    if (candidate[k] != alive) revive(args, limit, k, candidate[k]);
}

}  // namespace vqk::VQK_LEVEL
