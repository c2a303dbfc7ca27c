#include "streamed_search.h"

#include "bound.h"
#include "exact.h"
#include "float8.h"
#include "parallel.h"
#include "prepare_rows.h"
#include "row_tiles.h"
#include "stream.h"

namespace vqk::VQK_LEVEL {
namespace {

// Codes per turn of a worker: half of a first-level cache, the other half is for rows.
constexpr int64_t chunk_floats = 4096;

int64_t divided_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit; }

// Writes b of one code to `out`, (D,), and returns |b|^2: NaN or infinite if the code is not
// finite.
VQK_INLINE float scaled_code(const float* code, const float* shift, float scale, int64_t dim,
                             float* out) {
  Float8 squares{};
  int64_t i = 0;
  for (; i + 8 <= dim; i += 8) {
    const Float8 value = (*reinterpret_cast<const UnalignedFloat8*>(code + i) -
                          *reinterpret_cast<const UnalignedFloat8*>(shift + i)) *
                         scale;
    *reinterpret_cast<UnalignedFloat8*>(out + i) = value;
    squares += value * value;
  }
  float tail = 0.0f;
  for (; i < dim; ++i) {
    out[i] = (code[i] - shift[i]) * scale;
    tail += out[i] * out[i];
  }
  return (((squares[0] + squares[4]) + (squares[2] + squares[6])) +
          ((squares[1] + squares[5]) + (squares[3] + squares[7]))) +
         tail;
}

// Codes [first, first + present) in the frame, then up to `count` that never win, as those with a
// larger |b|^2 than `most_square` do not. Returns the largest |b|^2 of the others.
float frame_codes(const Frame& frame, const float* shift, const float* codebook, int64_t present,
                  int64_t count, float most_square, float* codes, float* start) {
  float largest = 0.0f;
  for (int64_t k = 0; k < count; ++k) {
    float* code = codes + k * frame.dim;
    float square = __builtin_inff();
    if (k < present)
      square = scaled_code(codebook + k * frame.dim, shift, float(frame.scale), frame.dim, code);
    if (square <= most_square) {
      largest = square > largest ? square : largest;
      start[k] = frame.metric == Metric::l2 ? -0.5f * square : 0.0f;
    } else {
      start[k] = -__builtin_inff();
      for (int64_t i = 0; i < frame.dim; ++i) code[i] = 0.0f;
    }
  }
  return largest;
}

}  // namespace

// The two best scores of every row, one set per worker.
class StreamedSearch::Scores {
 public:
  Scores(int64_t workers, int64_t rows)
      : rows_(rows), best_(workers * rows), second_(workers * rows), code_(workers * rows) {
    for (int64_t i = 0; i < workers * rows; ++i) {
      best_[i] = second_[i] = -__builtin_inff();
      code_[i] = 0;
    }
  }

  StreamBest of(int64_t worker, int64_t row) const {
    const int64_t at = worker * rows_ + row;
    return {best_.data() + at, second_.data() + at, code_.data() + at};
  }

  // Brings the scores of all workers into the first one's. Equal best scores leave no margin, so
  // that it does not matter which code is kept.
  void merge(int64_t workers) const {
    for (int64_t w = 1; w < workers; ++w)
      for (int64_t r = 0; r < rows_; ++r) {
        const StreamBest other = of(w, r), mine = of(0, r);
        const bool better = *other.best > *mine.best;
        const float lower = better ? *mine.best : *other.best;
        const float second = *other.second > *mine.second ? *other.second : *mine.second;
        *mine.second = lower > second ? lower : second;
        if (!better) continue;
        *mine.best = *other.best;
        *mine.code = *other.code;
      }
  }

 private:
  int64_t rows_;
  Buffer<float> best_, second_;
  Buffer<int32_t> code_;
};

StreamedSearch::StreamedSearch(const float* codebook, int64_t num_codes, int64_t dim, Metric metric,
                               int64_t num_rows, int threads)
    : codebook_(codebook),
      num_codes_(num_codes),
      vectors_(num_rows <= lanes ? 1 : stream_vectors),
      threads_(threads),
      survey_(codebook, num_codes, dim, false, threads),
      frame_{dim, metric, survey_.scale, survey_.shift_norm, survey_.shift.data()} {}

StreamedSearch::~StreamedSearch() = default;

bool StreamedSearch::usable() const { return survey_.reach < 0x1p100f && survey_.scale < 0x1p100; }

int64_t StreamedSearch::assign(const float* x, int64_t count, int64_t* indices, float* distances,
                               uint8_t* finite, int64_t* undecided) const {
  const int64_t tile = vectors_ * lanes, padded_count = divided_up(count, tile) * tile;
  const Buffer<float> z(padded_count * frame_.dim);
  const Buffer<RowPlan> plans(count);
  frame_rows(x, count, z.data(), plans.data());
  const Scores scores(threads_, padded_count);
  const float most_square = largest_square(plans.data(), count);
  const float square = stream_codes(z.data(), padded_count, most_square, scores);
  scores.merge(threads_);

  const double norm = __builtin_sqrt(double(square) * (1.0 + bound_alpha(frame_.dim)));
  const float reach = group_reach(norm), curve = group_curve(norm, frame_.dim, frame_.metric);
  const Buffer<int64_t> decided(count);
  int64_t num_decided = 0, num_undecided = 0;
  for (int64_t r = 0; r < count; ++r) {
    const RowPlan& plan = plans[r];
    const bool none = plan.state == RowState::nonfinite || survey_.first_finite < 0;
    const bool search = !none && plan.state == RowState::search;
    const StreamBest row = scores.of(0, r);
    const float error = plan.bound.slope * reach + curve;
    const float threshold = (*row.best - error) - 2.0f * plan.bound.offset;
    if (search && !(*row.second + error < threshold)) {
      undecided[num_undecided++] = r;
      continue;
    }
    if (search) decided[num_decided++] = r;
    indices[r] = none ? 0 : search ? *row.code : survey_.first_finite;
    if (distances != nullptr) distances[r] = none ? __builtin_nanf("") : 0.0f;
    if (finite != nullptr) finite[r] = plan.state != RowState::nonfinite;
  }
  if (distances != nullptr)
    exact_distances(frame_.metric, frame_.dim, x, codebook_, decided.data(), num_decided, indices,
                    distances);
  return num_undecided;
}

void StreamedSearch::frame_rows(const float* x, int64_t count, float* z, RowPlan* plans) const {
  const int64_t width = padded(frame_.dim), tile = vectors_ * lanes;
  const Buffer<float> rows(threads_ * tile * width);
  parallel_for(divided_up(count, tile), threads_, [&](int64_t t, int worker) {
    const int64_t first = t * tile, left = count - first < tile ? count - first : tile;
    prepare_rows(frame_, x + first * width, left, tile, rows.data() + worker * tile * width,
                 z + first * frame_.dim, plans + first);
  });
}

// Of |b| of the codes that may be the best for one of the rows.
float StreamedSearch::largest_square(const RowPlan* plans, int64_t count) const {
  constexpr float most = 0x1.fffffep127f;
  if (frame_.metric == Metric::cosine) return most;
  float norm = 0.0f;
  for (int64_t r = 0; r < count; ++r) norm = plans[r].norm > norm ? plans[r].norm : norm;
  const double size = __builtin_sqrt(double(frame_.dim)) * double(survey_.least_reach);
  const double limit = far_norm(norm, frame_.scale * size + frame_.shift_norm);
  // |b|^2 is a float32 sum.
  const double square = limit * limit * (1.0 + 2.0 * bound_alpha(frame_.dim)) + 0x1p-100;
  return square < double(most) ? float(square) : most;
}

float StreamedSearch::stream_codes(const float* z, int64_t rows, float most_square,
                                   const Scores& scores) const {
  const int64_t dim = frame_.dim, tile = vectors_ * lanes;
  const int64_t steps = chunk_floats / (stream_step * dim);
  const int64_t chunk = stream_step * (steps < 1 ? 1 : steps);
  const Buffer<float> codes(threads_ * chunk * dim), starts(threads_ * chunk), shift(dim);
  const Buffer<float> squares(threads_);
  for (int64_t i = 0; i < dim; ++i) shift[i] = float(frame_.shift[i]);
  for (int64_t w = 0; w < threads_; ++w) squares[w] = 0.0f;
  parallel_for(divided_up(num_codes_, chunk), threads_, [&](int64_t c, int worker) {
    float *code = codes.data() + worker * chunk * dim, *start = starts.data() + worker * chunk;
    const int64_t first = c * chunk;
    const int64_t present = num_codes_ - first < chunk ? num_codes_ - first : chunk;
    const int64_t count = divided_up(present, stream_step) * stream_step;
    const float square = frame_codes(frame_, shift.data(), codebook_ + first * dim, present, count,
                                     most_square, code, start);
    squares[worker] = square > squares[worker] ? square : squares[worker];
    for (int64_t r = 0; r < rows; r += tile)
      stream_tile(z + r * dim, vectors_, code, start, first, count, dim, scores.of(worker, r));
  });
  float largest = 0.0f;
  for (int64_t w = 0; w < threads_; ++w) largest = squares[w] > largest ? squares[w] : largest;
  return largest;
}

}  // namespace vqk::VQK_LEVEL
