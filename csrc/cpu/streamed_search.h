#pragma once

#include <cstdint>

#include "bound.h"
#include "codebook_survey.h"
#include "prepare_rows.h"

namespace vqk::VQK_LEVEL {

// The search of few rows. Packing a codebook costs as much as screening some hundred rows, so here
// the codes stream by once, split over the workers, and each row keeps its two best scores: where
// bound.h tells them apart the best code is the nearest one.
class StreamedSearch {
 public:
  static constexpr int64_t most_rows = 511;

  // codebook: (K, D), kept by reference
  StreamedSearch(const float* codebook, int64_t num_codes, int64_t dim, Metric metric,
                 int64_t num_rows, int threads);
  ~StreamedSearch();

  // False where float32 cannot hold the shifted and scaled codes.
  bool usable() const;

  // Assigns `count` rows as PackedSearch::assign does, but for those that it cannot decide:
  // their numbers, ascending, go to `undecided`, (count,), and nothing else of them is written.
  // Returns how many there are.
  int64_t assign(const float* tile, int64_t count, int64_t* indices, float* distances,
                 uint8_t* finite, int64_t* undecided) const;

 private:
  class Scores;

  void frame_rows(const float* x, int64_t count, float* z, RowPlan* plans) const;
  float largest_square(const RowPlan* plans, int64_t count) const;
  float stream_codes(const float* z, int64_t rows, float most_square, const Scores& scores) const;

  const float* codebook_;
  int64_t num_codes_;
  int vectors_, threads_;
  CodebookSurvey survey_;
  Frame frame_;
};

}  // namespace vqk::VQK_LEVEL
