#include "soft_sums.h"

#include "parallel.h"
#include "row_tiles.h"

namespace vqk::VQK_LEVEL {
namespace {

// Rows packed at a time: O(D) memory, and few enough meetings of the threads.
constexpr int64_t window_rows = 20 * block_streams;

// A window of rows as streams.
struct Window {
  Buffer<float> columns;  // (window_rows / tile_rows, 1 + D, tile_rows)
  Buffer<float> centred;  // (window_rows, pull_width(D))
  Buffer<float> terms;    // (4, window_rows)
};

void pack_block(const SoftFrame& frame, const SoftRows& rows, int64_t first, int64_t at,
                int64_t count, float* tile_memory, const Window& window) {
  const int64_t dim = frame.dim;
  const float* tile = as_tile(rows.x, first, count, tile_memory);
  double constants[block_streams];
  for (int64_t r = 0; r < count; r += tile_rows) {
    const int64_t left = count - r;
    frame.pack_rows(tile + r * padded(dim), rows.mask == nullptr ? nullptr : rows.mask + first + r,
                    left < tile_rows ? left : tile_rows, tile_rows,
                    window.columns.data() + (at + r) * (1 + dim),
                    window.centred.data() + (at + r) * pull_width(dim), constants + r);
  }
  float* terms = window.terms.data() + at;
  for (int64_t r = 0; r < count; ++r) {
    const int64_t n = first + r;
    split_normaliser(frame, rows.logsumexp[n], constants[r], terms + r, terms + window_rows + r);
    terms[2 * window_rows + r] = rows.row == nullptr ? 1.0f : rows.row[n];
    terms[3 * window_rows + r] = rows.slope == nullptr ? 0.0f : rows.slope[n];
  }
}

}  // namespace

void sum_over_rows(const SoftFrame& frame, const float* codebook, int64_t num_codes,
                   const SoftRows& rows, const float* of_code, int threads, double* totals,
                   double* sums) {
  const int64_t dim = frame.dim, num_rows = rows.x.count;
  const int64_t panels = code_panels(num_codes);
  const int64_t panel_floats = panel_codes * (1 + dim), panel_sums = panel_codes * pull_width(dim);
  const Buffer<float> lanes_of_codes(panels * panel_floats);
  parallel_for(panels, threads, [&](int64_t p, int) {
    const int64_t first = p * panel_codes, left = num_codes - first;
    frame.pack_codes(codebook + first * dim, left < panel_codes ? left : panel_codes, panel_codes,
                     lanes_of_codes.data() + p * panel_floats, nullptr);
    for (int64_t i = 0; i < panel_codes; ++i) totals[first + i] = 0.0;
    for (int64_t i = 0; sums != nullptr && i < panel_sums; ++i) sums[p * panel_sums + i] = 0.0;
  });

  const int64_t tile_floats = block_streams * padded(dim);
  const int64_t block_floats = block_streams * panel_codes;
  const Buffer<float> tiles(threads * tile_floats), logits(threads * block_floats);
  const Window window{Buffer<float>(window_rows * (1 + dim)),
                      Buffer<float>(window_rows * pull_width(dim)), Buffer<float>(4 * window_rows)};
  for (int64_t start = 0; start < num_rows; start += window_rows) {
    const int64_t size = num_rows - start < window_rows ? num_rows - start : window_rows;
    const int64_t blocks = (size + block_streams - 1) / block_streams;
    const auto block_size = [&](int64_t b) {
      const int64_t left = size - b * block_streams;
      return left < block_streams ? left : block_streams;
    };
    parallel_for(blocks, threads, [&](int64_t b, int worker) {
      pack_block(frame, rows, start + b * block_streams, b * block_streams, block_size(b),
                 tiles.data() + worker * tile_floats, window);
    });
    parallel_for(panels, threads, [&](int64_t p, int worker) {
      float* block = logits.data() + worker * block_floats;
      for (int64_t b = 0; b < blocks; ++b) {
        const int64_t at = b * block_streams, count = block_size(b);
        float* terms = window.terms.data() + at;
        tile_logits(window.columns.data() + at * (1 + dim), stream_tiles(count),
                    lanes_of_codes.data() + p * panel_floats, dim, block);
        weigh_codes_in_lanes(
            block, count,
            {terms, terms + window_rows, terms + 2 * window_rows, terms + 3 * window_rows},
            of_code + p * panel_codes, totals + p * panel_codes);
        if (sums != nullptr)
          pull(block, count, window.centred.data() + at * pull_width(dim), dim,
               sums + p * panel_sums);
      }
    });
  }
}

}  // namespace vqk::VQK_LEVEL
