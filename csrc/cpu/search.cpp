#include "search.h"

#include "cell_choice.h"
#include "memory.h"
#include "packed_search.h"
#include "parallel.h"
#include "prepared_block.h"
#include "row_tiles.h"
#include "streamed_search.h"

namespace vqk::VQK_LEVEL {

Search::Search(const float* codebook, int64_t num_codes, int64_t dim, Metric metric,
               const Prepared& prepared, int64_t num_rows, const RowSample& sample, int threads)
    : codebook_(codebook),
      num_codes_(num_codes),
      dim_(dim),
      metric_(metric),
      num_rows_(num_rows),
      threads_(threads),
      opened_(new OpenedBlock(prepared, codebook, num_codes, dim, metric, threads)),
      cells_(new CellChoice(codebook, num_codes, dim, *opened_, num_rows, sample, true, threads)) {
  if (cells_->search() != nullptr) return;
  if (!opened_->fresh && num_rows <= StreamedSearch::most_rows) {
    streamed_.reset(new StreamedSearch(codebook, num_codes, dim, metric, num_rows, threads));
    if (streamed_->usable()) return;
    streamed_.reset();
  }
  packed_.reset(new PackedSearch(codebook, num_codes, dim, metric,
                                 opened_->fresh ? &opened_->packed : nullptr, num_rows, threads));
}

Search::~Search() = default;

int64_t Search::block_rows() const {
  if (cells_->search() != nullptr) return cells_->search()->block_rows();
  return packed_.get() != nullptr ? packed_->block_rows() : num_rows_;
}

int64_t Search::scratch_floats() const {
  if (cells_->search() != nullptr) return cells_->search()->scratch_floats();
  return packed_.get() != nullptr ? packed_->scratch_floats() : 0;
}

void Search::assign(const float* tile, int64_t count, float* scratch, int64_t* indices,
                    float* distances, uint8_t* finite) const {
  if (cells_->search() != nullptr)
    cells_->search()->assign(tile, count, scratch, indices, distances, finite);
  else if (packed_.get() != nullptr)
    packed_->assign(tile, count, scratch, indices, distances, finite);
  else
    assign_streamed(tile, count, indices, distances, finite);
}

void Search::assign_streamed(const float* tile, int64_t count, int64_t* indices, float* distances,
                             uint8_t* finite) const {
  const int64_t width = padded(dim_);
  const Buffer<int64_t> undecided(count);
  const int64_t left = streamed_->assign(tile, count, indices, distances, finite, undecided.data());
  if (left == 0) return;

  const PackedSearch search(codebook_, num_codes_, dim_, metric_, nullptr, left, threads_);
  const int64_t block = search.block_rows(), floats = search.scratch_floats();
  const Buffer<float> rows(left * width), scratch(threads_ * floats);
  const Buffer<int64_t> found(left);
  const Buffer<float> measured(left);
  for (int64_t r = 0; r < left; ++r)
    for (int64_t i = 0; i < width; ++i) rows[r * width + i] = tile[undecided[r] * width + i];
  parallel_for((left + block - 1) / block, threads_, [&](int64_t b, int worker) {
    const int64_t first = b * block, some = left - first < block ? left - first : block;
    search.assign(rows.data() + first * width, some, scratch.data() + worker * floats,
                  found.data() + first, measured.data() + first, nullptr);
  });
  for (int64_t r = 0; r < left; ++r) {
    indices[undecided[r]] = found[r];
    if (distances != nullptr) distances[undecided[r]] = measured[r];
    if (finite != nullptr) finite[undecided[r]] = 1;
  }
}

}  // namespace vqk::VQK_LEVEL
