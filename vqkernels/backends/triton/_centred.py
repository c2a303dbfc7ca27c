"""Rows and codes as the soft assignment reads them: float32, the mean of the codes taken off.

The shift changes no distance, and without it |x|^2 - 2 x.c + |c|^2 would cancel where everything
lies far from the origin. One read through the strides, O(N D) written: the kernels that follow
read a row once for every tile of codes.
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


class Centred(NamedTuple):
    """N vectors; one that takes no part, masked or not finite, is zero here.

    Attributes:
        vectors: (N, W) float32, contiguous; W is D rounded up to CHANNELS, zero beyond D.
        squares: (N,) float32, |x|^2; -1 for a vector that takes no part.
    """

    vectors: Tensor
    squares: Tensor

    def biases(self, temperature: float) -> Tensor:
        """(N,) float64, |x|^2 / temperature; infinite for a vector that takes no part."""
        return torch.where(self.squares >= 0, self.squares.double() / temperature, torch.inf)


@triton.jit(do_not_specialize=["num_rows"])
def _centred_kernel(
    x_ptr,  # (N, D) through strides, fp32 | fp16 | bf16
    mask_ptr,  # (N,) uint8 | None
    centre_ptr,  # (D,) fp32
    vectors_ptr,  # (N, W) fp32
    squares_ptr,  # (N,) fp32
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
    for start in range(0, dim, BLOCK_D):
        column = start + tl.arange(0, BLOCK_D).to(tl.int64)
        inside = row_ok[:, None] & (column < dim)[None, :]
        x = tl.load(x_row[:, None] + column[None, :] * dim_stride, mask=inside, other=0.0)
        broken = tl.where(tl.abs(x.to(tl.float32)) < float("inf"), 0, 1)  # 1 for a NaN too
        counted = counted & (tl.max(broken, axis=1) == 0)
    square = tl.zeros((BLOCK_N,), tl.float64)
    for start in range(0, width, BLOCK_D):
        column = start + tl.arange(0, BLOCK_D).to(tl.int64)
        inside = row_ok[:, None] & (column < width)[None, :]
        taken = counted[:, None] & (column < dim)[None, :]
        x = tl.load(x_row[:, None] + column[None, :] * dim_stride, mask=taken, other=0.0)
        centre = tl.load(centre_ptr + column, mask=column < dim, other=0.0)
        value = tl.where(taken, x.to(tl.float32) - centre[None, :], 0.0)
        square += tl.sum(value.to(tl.float64) * value, axis=1)
        tl.store(vectors_ptr + row[:, None] * width + column[None, :], value, mask=inside)
    tl.store(squares_ptr + row, tl.where(counted, square, -1.0).to(tl.float32), mask=row_ok)


def centred(x: Tensor, centre: Tensor, channel_dim: int, mask: Tensor | None = None) -> Centred:
    """The rows of x less the ``centre``, (D,) float32; ``mask`` has the shape of the positions."""
    num_rows, dim = torch.Size(row_shape(x, channel_dim)).numel(), x.shape[channel_dim]
    width = triton.cdiv(dim, CHANNELS) * CHANNELS
    vectors = torch.empty(num_rows, width, dtype=torch.float32, device=x.device)
    squares = torch.empty(num_rows, dtype=torch.float32, device=x.device)
    x, layout = row_layout(x, channel_dim)
    block_n, block_d = tile(x, channel_dim)
    with torch.cuda.device_of(x):
        _centred_kernel[(triton.cdiv(num_rows, block_n),)](
            x,
            as_bytes(mask),
            centre,
            vectors,
            squares,
            num_rows,
            dim,
            width,
            *layout,
            BLOCK_N=block_n,
            BLOCK_D=block_d,
        )
    return Centred(vectors, squares)


def centre_of(codebook: Tensor) -> Tensor:
    """(D,) float32: the mean of the finite codes."""
    finite = codebook.isfinite().all(dim=1, keepdim=True)
    total = codebook.where(finite, 0).sum(dim=0, dtype=torch.float64)
    return (total / finite.sum().clamp(min=1)).float()
