#pragma once

#include <cstdint>

#include "memory.h"
#include "prepared_block.h"
#include "pruned_search.h"
#include "row_sample.h"

namespace vqk::VQK_LEVEL {

// Whether a call's rows are searched by cells of codes. How many cells a row must look at depends
// on the data, so some rows are tried. Cells that are not at hand are made only for calls that are
// long enough to bear it; where that did not pay, the next ones with the same partition do not try.
class CellChoice {
 public:
  // codebook: (K, D), kept by reference, as are block and sample. num_rows: N. Without `by_notes`
  // no earlier call answers for this one, nor this one for later ones.
  CellChoice(const float* codebook, int64_t num_codes, int64_t dim, const OpenedBlock& block,
             int64_t num_rows, const RowSample& sample, bool by_notes, int threads);

  // Null: look at every code.
  const PrunedSearch* search() const { return search_.get(); }
  // The share of the codes that the sample had to look at; negative if it was not tried.
  float share() const { return share_; }

 private:
  bool can_bear(int64_t num_rows) const;
  bool knows_answer();
  void make_codes(int64_t num_codes, int threads);
  bool pays_for(int64_t num_rows, const RowSample& sample, bool noted);

  const float* codebook_;
  const OpenedBlock& block_;
  Partition partition_;
  PrunedCodebook codes_;
  Buffer<char> partition_memory_, codes_memory_;
  Owned<const PrunedSearch> search_;
  float share_;
};

}  // namespace vqk::VQK_LEVEL
