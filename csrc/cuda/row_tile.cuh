#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "vqk/rows.h"

// Rows of any layout, read by a block of threads.
namespace vqk::cuda {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

__device__ inline float to_float(float value) { return value; }
__device__ inline float to_float(Half value) { return __half2float(__ushort_as_half(value.bits)); }
__device__ inline float to_float(BFloat16 value) {
  return __uint_as_float(uint32_t(value.bits) << 16);
}

__device__ inline bool is_finite(float value) {
  return (__float_as_uint(value) & 0x7fffffffu) < 0x7f800000u;
}

// Element offset of the first channel of a row. Divisions of 64 bits cost several of 32.
__device__ inline int64_t row_offset(const Rows& rows, int64_t row) {
  if (rows.num_dims == 1) return row * rows.strides[0];
  int64_t offset = 0;
  for (int d = rows.num_dims - 1; d >= 0; --d) {
    const int64_t size = rows.sizes[d];
    int64_t quotient;
    if (((row | size) >> 32) == 0)
      quotient = uint32_t(row) / uint32_t(size);
    else
      quotient = row / size;
    offset += (row - quotient * size) * rows.strides[d];
    row = quotient;
  }
  return offset;
}

__device__ inline float load_element(const Rows& rows, int64_t offset) {
  switch (rows.dtype) {
    case Dtype::float32:
      return static_cast<const float*>(rows.data)[offset];
    case Dtype::float16:
      return to_float(static_cast<const Half*>(rows.data)[offset]);
    default:
      return to_float(static_cast<const BFloat16*>(rows.data)[offset]);
  }
}

constexpr int tile_rows = 128;
constexpr int tile_dims = 16;
// A multiple of 4 keeps float4 reads aligned; the rest of it spreads columns over the banks.
constexpr int tile_stride = tile_rows + 4;

// Channels [first, first + tile_dims) of tile_rows rows, channel-major.
using Tile = float[tile_dims][tile_stride];

// Fills a tile; channels beyond `dim` repeat the last. The threads of a warp read neighbours, along
// the channels or along the rows. `read` is (row in the tile, channel) -> float. All of a thread's
// reads are on their way before it needs the first.
template <int threads, class Read>
__device__ __forceinline__ void fill_tile(Tile& tile, int first, int dim, bool along_channels,
                                          const Read& read) {
  constexpr int each = tile_rows * tile_dims / threads;
  const int t = threadIdx.x;
  const int row = along_channels ? t / tile_dims : t % tile_rows;
  const int row_step = along_channels ? threads / tile_dims : 0;
  const int channel = along_channels ? t % tile_dims : t / tile_rows;
  const int channel_step = along_channels ? 0 : threads / tile_rows;
  float value[each];
#pragma unroll
  for (int j = 0; j < each; ++j) {
    const int i = first + channel + j * channel_step;
    value[j] = read(row + j * row_step, i < dim ? i : dim - 1);
  }
#pragma unroll
  for (int j = 0; j < each; ++j) tile[channel + j * channel_step][row + j * row_step] = value[j];
}

// The same for rows of x. `offsets` is (tile_rows,) row_offset.
template <int threads, class Element>
__device__ __forceinline__ void fill_elements(Tile& tile, int first, const Rows& x,
                                              const int64_t* offsets) {
  const Element* data = static_cast<const Element*>(x.data);
  const int64_t stride = x.dim_stride;
  fill_tile<threads>(tile, first, int(x.dim), stride == 1,
                     [&](int row, int i) { return to_float(data[offsets[row] + i * stride]); });
}

template <int threads>
__device__ __forceinline__ void fill_rows(Tile& tile, int first, const Rows& x,
                                          const int64_t* offsets) {
  switch (x.dtype) {
    case Dtype::float32:
      return fill_elements<threads, float>(tile, first, x, offsets);
    case Dtype::float16:
      return fill_elements<threads, Half>(tile, first, x, offsets);
    default:
      return fill_elements<threads, BFloat16>(tile, first, x, offsets);
  }
}

}  // namespace vqk::cuda
