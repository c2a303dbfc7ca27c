"""sample_residuals in Triton: draw, sort, and one launch that follows the rows through the levels.

Subtractions in float32, one after the other, as the levels made them: the bits of ``in_torch``.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vqkernels.backends.triton._draw import draw, sampled_rows
from vqkernels.backends.triton._layouts import joint_layout, row_start, split_row
from vqkernels.backends.triton._tiles import tile_of_length


@triton.jit(do_not_specialize=["num_codes", "books", "levels", "count", "steps"])
def _follow_kernel(
    x_ptr,  # (N, D) through strides, fp32 | fp16 | bf16
    codebooks_ptr,  # (books, K, D) contiguous, fp32 | fp16 | bf16 | None if levels is 1
    indices_ptr,  # (N, levels) int64 contiguous | None if levels is 1
    positions_ptr,  # (count,) int64
    keys_ptr,  # (count,) int64, ascending
    order_ptr,  # (count,) int64
    rows_ptr,  # (levels, count, D) fp32
    found_ptr,  # () int64
    numbers_ptr,  # (count,) int64, out: the rows of x
    num_codes,
    books,
    levels,
    dim,
    count,
    steps,
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
    slot = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    column = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D).to(tl.int64)
    slot_ok = slot < count
    inside = slot_ok[:, None] & (column < dim)[None, :]
    row, found = sampled_rows(positions_ptr, keys_ptr, order_ptr, slot, slot_ok, count, steps)
    if (tl.program_id(0) == 0) & (tl.program_id(1) == 0):
        tl.store(found_ptr, found)
    if tl.program_id(1) == 0:
        tl.store(numbers_ptr + slot, row, mask=slot_ok)
    i0, i1, i2, i3 = split_row(row, size1, size2, size3)
    start = row_start(i0, i1, i2, i3, stride0, stride1, stride2, stride3)
    x_at = x_ptr + (start[:, None] + column[None, :] * dim_stride)
    left = tl.load(x_at, mask=inside, other=0.0).to(tl.float32)
    out = rows_ptr + (slot[:, None] * dim + column[None, :])
    tl.store(out, left, mask=inside)
    if indices_ptr is not None:
        for level in range(0, levels - 1):
            code = tl.load(indices_ptr + row * levels + level, mask=slot_ok, other=0)
            code = tl.maximum(code, 0) + (level % books).to(tl.int64) * num_codes
            at = codebooks_ptr + (code[:, None] * dim + column[None, :])
            left = left - tl.load(at, mask=inside, other=0.0).to(tl.float32)
            out += count.to(tl.int64) * dim
            tl.store(out, left, mask=inside)


def follow_rows(
    x: Tensor,
    codebooks: Tensor | None,
    indices: Tensor | None,
    mask: Tensor | None,
    clock: Tensor,
    count: int,
    seed: int,
    channel_dim: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Drawn rows as every level met them, (levels, count, D), how many are usable, and their
    numbers; x itself alone without indices.
    """
    if joint_layout(channel_dim, x) is None:
        x = x.contiguous()
    levels, dim = 1 if indices is None else indices.shape[-1], x.shape[channel_dim]
    books, k = (1, 0) if codebooks is None else codebooks.shape[:2]
    rows = torch.empty(levels, count, dim, dtype=torch.float32, device=x.device)
    found = torch.empty_like(clock)
    numbers = torch.empty(count, dtype=torch.int64, device=x.device)
    drawn = draw(x, mask, clock, count, seed, channel_dim)
    block_n, block_d = tile_of_length(dim)
    with torch.cuda.device_of(x):
        _follow_kernel[(triton.cdiv(count, block_n), triton.cdiv(dim, block_d))](
            x,
            None if codebooks is None else codebooks.contiguous(),
            None if indices is None else indices.contiguous(),
            *drawn,
            rows,
            found,
            numbers,
            k,
            books,
            levels,
            dim,
            count,
            count.bit_length(),
            *joint_layout(channel_dim, x),
            BLOCK_N=block_n,
            BLOCK_D=block_d,
        )
    return rows, found, numbers


def sample_residuals(
    x: Tensor,
    codebooks: Tensor,
    indices: Tensor,
    mask: Tensor | None,
    clock: Tensor,
    count: int,
    seed: int,
    channel_dim: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """As ``ops.sample_residuals.in_torch`` defines them."""
    return follow_rows(x, codebooks, indices, mask, clock, count, seed, channel_dim)
