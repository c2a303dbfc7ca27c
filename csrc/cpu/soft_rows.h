#pragma once

#include <cstdint>

#include "memory.h"
#include "parallel.h"
#include "row_tiles.h"
#include "soft_frame.h"

namespace vqk::VQK_LEVEL {

// Some rows in the lanes of a panel, and a worker's memory for their logits.
struct RowPanel {
  int64_t first, count;
  const float* tile;        // (count, padded(D)) the rows as given
  const float* columns;     // (1 + D, panel_codes)
  const double* constants;  // (count,) as in SoftFrame::pack_rows
  float* logits;            // (block_streams, panel_codes)
};

namespace {

// body(panel, worker) for all rows of x, a panel at a time. mask: (N,) or null.
template <class Body>
void for_each_row_panel(const SoftFrame& frame, const Rows& x, const uint8_t* mask, int threads,
                        const Body& body) {
  const int64_t tile_floats = panel_codes * padded(x.dim);
  const int64_t panel_floats = panel_codes * (1 + x.dim);
  const int64_t block_floats = block_streams * panel_codes;
  const Buffer<float> tiles(threads * tile_floats), panels(threads * panel_floats);
  const Buffer<float> logits(threads * block_floats);
  const Buffer<double> constants(threads * panel_codes);
  const int64_t num_panels = (x.count + panel_codes - 1) / panel_codes;
  parallel_for(num_panels, threads, [&](int64_t p, int worker) {
    const int64_t first = p * panel_codes, left = x.count - first;
    const int64_t count = left < panel_codes ? left : panel_codes;
    const float* tile = as_tile(x, first, count, tiles.data() + worker * tile_floats);
    float* columns = panels.data() + worker * panel_floats;
    double* constant = constants.data() + worker * panel_codes;
    frame.pack_rows(tile, mask == nullptr ? nullptr : mask + first, count, panel_codes, columns,
                    nullptr, constant);
    body(RowPanel{first, count, tile, columns, constant, logits.data() + worker * block_floats},
         worker);
  });
}

// body(first, count) for all codes, a block at a time, whose logits are then in panel.logits.
template <class Body>
void for_each_code_block(const StreamedCodes& codes, const RowPanel& panel, const Body& body) {
  for (int64_t first = 0; first < codes.num_codes; first += block_streams) {
    const int64_t left = codes.num_codes - first;
    const int64_t count = left < block_streams ? left : block_streams;
    tile_logits(codes.tile(first), stream_tiles(count), panel.columns, codes.dim, panel.logits);
    body(first, count);
  }
}

}  // namespace

}  // namespace vqk::VQK_LEVEL
