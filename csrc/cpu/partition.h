#pragma once

#include <cstdint>

#include "bound.h"
#include "centres.h"

namespace vqk::VQK_LEVEL {

// Some codes of a codebook, in the frame of their search.
struct FramedCodes {
  const float* codebook;  // (K, D)
  const int32_t* ids;     // (count,) finite codes
  int64_t count;
  const Frame& frame;
};

// Where the centres of a codebook's cells lie. Any partition is exact, also one of a codebook that
// has moved since: it only decides how many codes must be looked at. A view of a caller's memory,
// which may outlive many versions of the codebook.
struct Partition {
  // What searches have learned by it. Several may write here at a time; no result depends on it.
  struct Notes {
    float share;        // of the codes that were looked at lately; 0: unknown
    float least_share;  // at best
    int32_t pays;       // whether the last try did
    int32_t wait;       // searches that need not try again
  };

  // How many cells suit a codebook; 0 where looking at every code is cheap.
  static int64_t suitable_cells(int64_t num_codes, int64_t dim);

  // Places the parts in `memory`, aligned to 64 bytes; null to learn `bytes` only.
  Partition(int64_t dim, int64_t most_cells, void* memory);

  // Takes over memory that find() has filled for codes of as many channels.
  static bool fits(const void* memory, int64_t bytes, int64_t dim, int64_t* most_cells);
  void open();

  // Centres by a few steps of k-means over at most some dozen codes per cell.
  void find(const FramedCodes& codes, int threads);

  int64_t bytes, dim, most_cells;
  int64_t count;  // of cells
  float* points;  // (count, D) where codes lie
  Notes* notes;

 private:
  struct Header {
    uint64_t format;
    int64_t dim, most_cells, count;
  };
  Header* header_;
};

// Fills centres from points that lie where codes do or once did, (G, D). One that bound.h calls too
// far out is put at the origin of the frame.
void frame_centres(const Frame& frame, const float* points, const Centres& centres);

// The cell of every code: its nearest centre. cells: (count,) out.
void assign_cells(const FramedCodes& codes, const Centres& centres, int threads, int32_t* cells);

}  // namespace vqk::VQK_LEVEL
