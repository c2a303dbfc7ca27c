"""Rows and codes as the soft assignment reads them: float32, about the mean of the codes, scaled.

The shift changes no distance, and without it |x|^2 - 2 x.c + |c|^2 would cancel where everything
lies far from the origin; scaled by a power of two, no square leaves float32. One read through the
strides, O(N D) written: the kernels that follow read a row once for every tile of codes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from vqkernels._layout import row_shape
from vqkernels.backends.triton._layouts import row_layout, row_offsets
from vqkernels.backends.triton._row_facts import as_bytes
from vqkernels.backends.triton._tiles import tile

# Vectors are cut into so many: few, as the operands of a product in fp32 lie in registers, and as
# many as make loads wide.
CHANNELS = 16


# A vector that is longer in units of the codes is brought here along its direction, where its
# products stay in float32: no row that far off could tell the codes apart.
_FARTHEST = tl.constexpr(2.0**100)


class Frame(NamedTuple):
    """Where vectors are seen from.

    Attributes:
        centre: (D,) float64, the mean of the finite codes or 0.
        scale: () float64, a power of two that makes the largest component of a code about 1.
    """

    centre: Tensor
    scale: Tensor


class Centred(NamedTuple):
    """N vectors; one that takes no part, masked or not finite, is zero here.

    Attributes:
        vectors: (N, W) float32, contiguous; W is D rounded up to CHANNELS, zero beyond D.
        half_squares: (N,) float64, |x|^2 / 2 of them; infinite where one takes no part.
    """

    vectors: Tensor
    half_squares: Tensor


@triton.jit(do_not_specialize=["num_rows"])
def _centred_kernel(
    x_ptr,  # (N, D) through strides, fp32 | fp16 | bf16
    mask_ptr,  # (N,) uint8 | None
    centre_ptr,  # (D,) fp64
    scale_ptr,  # () fp64
    vectors_ptr,  # (N, W) fp32
    half_squares_ptr,  # (N,) fp64
    num_rows,
    dim,
    width,
    size1,
    size2,
    size3,
    stride0,
    stride1,
    stride2,
    stride3,
    dim_stride,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    row_ok = row < num_rows
    x_row = x_ptr + row_offsets(row, size1, size2, size3, stride0, stride1, stride2, stride3)
    counted = row_ok
    if mask_ptr is not None:
        counted = counted & (tl.load(mask_ptr + row, mask=row_ok, other=0) != 0)
    largest = tl.zeros((BLOCK_N,), tl.float64)
    for start in range(0, dim, BLOCK_D):
        column = start + tl.arange(0, BLOCK_D).to(tl.int64)
        inside = row_ok[:, None] & (column < dim)[None, :]
        x = tl.load(x_row[:, None] + column[None, :] * dim_stride, mask=inside, other=0.0)
        x = x.to(tl.float32)
        broken = tl.where(tl.abs(x) < float("inf"), 0, 1)  # 1 for a NaN too
        counted = counted & (tl.max(broken, axis=1) == 0)
        centre = tl.load(centre_ptr + column, mask=column < dim, other=0.0)
        distance = tl.where(inside, tl.abs(x.to(tl.float64) - centre[None, :]), 0.0)
        largest = tl.maximum(largest, tl.max(distance, axis=1))
    scale = tl.load(scale_ptr)
    largest = tl.where(counted, largest * scale, 0.0)
    nearer = _FARTHEST / tl.maximum(largest, _FARTHEST)
    square = tl.zeros((BLOCK_N,), tl.float64)
    for start in range(0, width, BLOCK_D):
        column = start + tl.arange(0, BLOCK_D).to(tl.int64)
        inside = row_ok[:, None] & (column < width)[None, :]
        taken = counted[:, None] & (column < dim)[None, :]
        x = tl.load(x_row[:, None] + column[None, :] * dim_stride, mask=taken, other=0.0)
        centre = tl.load(centre_ptr + column, mask=column < dim, other=0.0)
        value = (x.to(tl.float32).to(tl.float64) - centre[None, :]) * (nearer * scale)[:, None]
        value = tl.where(taken, value, 0.0).to(tl.float32)
        wide = value.to(tl.float64)  # as rounded: near a code the squares cancel the product
        square += tl.sum(wide * wide, axis=1)
        tl.store(vectors_ptr + row[:, None] * width + column[None, :], value, mask=inside)
    half_square = tl.where(counted, square / (nearer * nearer) * 0.5, float("inf"))
    tl.store(half_squares_ptr + row, half_square, mask=row_ok)


def centred(x: Tensor, frame: Frame, channel_dim: int, mask: Tensor | None = None) -> Centred:
    """The rows of x; ``mask`` has the shape of the positions."""
    num_rows, dim = torch.Size(row_shape(x, channel_dim)).numel(), x.shape[channel_dim]
    width = triton.cdiv(dim, CHANNELS) * CHANNELS
    vectors = torch.empty(num_rows, width, dtype=torch.float32, device=x.device)
    half_squares = torch.empty(num_rows, dtype=torch.float64, device=x.device)
    x, layout = row_layout(x, channel_dim)
    block_n, block_d = tile(x, channel_dim)
    with torch.cuda.device_of(x):
        _centred_kernel[(triton.cdiv(num_rows, block_n),)](
            x,
            as_bytes(mask),
            *frame,
            vectors,
            half_squares,
            num_rows,
            dim,
            width,
            *layout,
            BLOCK_N=block_n,
            BLOCK_D=block_d,
        )
    return Centred(vectors, half_squares)


def frame_of(codebook: Tensor) -> Frame:
    """That of the finite codes; of none, or of codes that are all equal, the scale is 1.

    A channel whose mean lies near 0 for the spread of its codes has its centre at 0: there is
    nothing to gain, and values that are not moved are not rounded.
    """
    finite = codebook.isfinite().all(dim=1, keepdim=True)
    codes = codebook.where(finite, 0).double()
    mean = codes.sum(dim=0) / finite.sum().clamp(min=1)
    spread = (codes - mean).abs().where(finite, 0).amax(dim=0)
    centre = torch.where(mean.abs() > spread / 16, mean, 0.0)
    largest = (codes - centre).abs().where(finite, 0).amax()
    exponent = torch.where(largest > 0, largest, 1.0).log2().ceil()
    return Frame(centre, torch.exp2(-exponent))
