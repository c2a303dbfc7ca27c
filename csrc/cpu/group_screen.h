#pragma once

#include <cstdint>

#include "memory.h"
#include "packed_codebook.h"
#include "prepare_rows.h"

namespace vqk::VQK_LEVEL {

// The first half of a search of many rows: scores every code of a packed codebook in float32 and
// marks, row by row, the groups that bound.h cannot exclude. No score decides anything else.
struct GroupScreen {
  float* z;              // (block_rows / tile_rows, D, tile_rows) shifted and scaled rows
  float* maxima;         // (block_rows, num_groups) best scores, then upper bounds of them
  float* rows;           // (tile_rows, padded(D)) for prepare_rows
  RowPlan* plans;        // (block_rows,)
  uint64_t* candidates;  // (block_rows, num_words) one bit per group
  int64_t* groups;       // (block_rows,) how many were screened, from the first on
  int64_t num_words;

  // Takes its memory from `parts`.
  GroupScreen(const PackedCodebook& codes, int64_t block_rows, Parts& parts);

  // Screens `count` rows of `tile`, (count, padded(D)) float32, padding zero. least:
  // codes.norm_of_least(how many best codes will be marked).
  void score(const PackedCodebook& codes, const float* tile, int64_t count, float least) const;

  // Marks the groups of row r that may hold its best code.
  void mark(const PackedCodebook& codes, int64_t r) const;

  // The same for its `best` best codes; lower: (best,) scratch.
  void mark(const PackedCodebook& codes, int64_t r, int64_t best, float* lower) const;

  // Calls body(group) for the marked groups of row r, ascending.
  template <class Body>
  VQK_INLINE void for_each_candidate(int64_t r, const Body& body) const {
    for (int64_t i = 0; i < num_words; ++i)
      for (uint64_t word = candidates[r * num_words + i]; word != 0; word &= word - 1)
        body(64 * i + __builtin_ctzll(word));
  }

 private:
  void mark_from(const PackedCodebook& codes, int64_t r, float lower) const;
};

// Rows per block that balance the workers and fit the caches, of `num_rows` in all.
int64_t screened_rows(const PackedCodebook& codes, int64_t num_rows, int threads);

}  // namespace vqk::VQK_LEVEL
