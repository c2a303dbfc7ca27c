#include "stream.h"

namespace vqk::VQK_LEVEL {
namespace {

template <int vectors, int block>
VQK_INLINE void stream_block(const float* z, const float* codes, const float* start, int64_t first,
                             int64_t dim, const StreamBest& state) {
  Vec score[block][vectors];
#pragma GCC unroll 32
  for (int c = 0; c < block; ++c)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) score[c][v] = splat(start[c]);
  for (int64_t i = 0; i < dim; ++i) {
    Vec row[vectors];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) row[v] = load(z + (i * vectors + v) * lanes);
#pragma GCC unroll 32
    for (int c = 0; c < block; ++c) {
      const Vec value = splat(codes[c * dim + i]);
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) score[c][v] = multiply_add(row[v], value, score[c][v]);
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < vectors; ++v) {
    Vec best = load(state.best + v * lanes), second = load(state.second + v * lanes);
    IntVec code = load(state.code + v * lanes);
#pragma GCC unroll 32
    for (int c = 0; c < block; ++c) {
      code = select_greater(score[c][v], best, splat(int32_t(first) + c), code);
      second = maximum(second, minimum(best, score[c][v]));
      best = maximum(best, score[c][v]);
    }
    store(state.best + v * lanes, best);
    store(state.second + v * lanes, second);
    store(state.code + v * lanes, code);
  }
}

template <int vectors>
void stream_all(const float* z, const float* codes, const float* start, int64_t first,
                int64_t count, int64_t dim, const StreamBest& state) {
  constexpr int block = stream_step / vectors;
  for (int64_t k = 0; k < count; k += block)
    stream_block<vectors, block>(z, codes + k * dim, start + k, first + k, dim, state);
}

}  // namespace

void stream_tile(const float* z, int vectors, const float* codes, const float* start, int64_t first,
                 int64_t count, int64_t dim, const StreamBest& state) {
  if (vectors == 1)
    stream_all<1>(z, codes, start, first, count, dim, state);
  else
    stream_all<stream_vectors>(z, codes, start, first, count, dim, state);
}

}  // namespace vqk::VQK_LEVEL
