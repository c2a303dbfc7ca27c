"""Which rows count, under which key they are sorted, and how long they are."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vqkernels._numerics import TINY
from vqkernels.backends.triton._layouts import joint_layout, row_start, split_row
from vqkernels.backends.triton._tiles import tile

_TINY = tl.constexpr(TINY)


@triton.jit
def row_facts(x_row, row_ok, dim, stride, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):
    """Whether rows are finite, and their norms in float64, at least TINY."""
    finite = row_ok
    total = tl.zeros((BLOCK_N,), tl.float64)
    for start in range(0, dim, BLOCK_D):
        column = start + tl.arange(0, BLOCK_D).to(tl.int64)
        inside = row_ok[:, None] & (column < dim)[None, :]
        x = tl.load(x_row[:, None] + column[None, :] * stride, mask=inside, other=0.0)
        x = x.to(tl.float32)
        broken = tl.where(tl.abs(x) < float("inf"), 0, 1)  # 1 for a NaN too
        finite = finite & (tl.max(broken, axis=1) == 0)
        wide = x.to(tl.float64)
        total += tl.sum(wide * wide, axis=1)
    tiny = tl.full((BLOCK_N,), _TINY, tl.float64)
    return finite, tl.maximum(tl.sqrt(total), tiny)


@triton.jit(do_not_specialize=["num_rows", "num_codes"])
def _row_keys_kernel(
    x_ptr,  # (N, D) through strides, fp32 | fp16 | bf16
    codes_ptr,  # (N,) any integer
    mask_ptr,  # (N,) uint8 | None
    keys_ptr,  # (N,) int16 | int32
    inverse_norms_ptr,  # (N,) fp64 | None
    num_rows,
    num_codes,
    dim,
    code_stride,
    size1,
    size2,
    size3,
    stride0,
    stride1,
    stride2,
    stride3,
    dim_stride,
    SKIP_NONFINITE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    row_ok = row < num_rows
    code = tl.load(codes_ptr + row * code_stride, mask=row_ok, other=0).to(tl.int64)
    counted = (code >= 0) & (code < num_codes)
    if mask_ptr is not None:
        counted = counted & (tl.load(mask_ptr + row, mask=row_ok, other=0) != 0)
    if SKIP_NONFINITE or inverse_norms_ptr is not None:
        i0, i1, i2, i3 = split_row(row, size1, size2, size3)
        x_row = x_ptr + row_start(i0, i1, i2, i3, stride0, stride1, stride2, stride3)
        finite, norm = row_facts(x_row, row_ok, dim, dim_stride, BLOCK_N, BLOCK_D)
        if SKIP_NONFINITE:
            counted = counted & finite
        if inverse_norms_ptr is not None:
            tl.store(inverse_norms_ptr + row, 1.0 / norm, mask=row_ok)
    key = tl.where(counted, code, num_codes)
    tl.store(keys_ptr + row, key.to(keys_ptr.dtype.element_ty), mask=row_ok)


def key_dtype(num_codes: int) -> torch.dtype:
    """The narrowest that holds 0 to ``num_codes``: a radix sort passes over every byte."""
    return torch.int16 if num_codes <= torch.iinfo(torch.int16).max else torch.int32


def row_keys(
    x: Tensor,
    codes: Tensor,
    mask: Tensor | None,
    num_codes: int,
    channel_dim: int,
    *,
    unit: bool,
    skip_nonfinite: bool,
) -> tuple[Tensor, Tensor | None]:
    """Keys (N,): the code of every row that counts, ``num_codes`` for the others; and 1/|x|.

    ``codes`` is (N,) of any stride, the positions of x in order. The inverse norms, (N,) float64
    and at most 1/TINY, are there with ``unit``.
    """
    n, dim = codes.numel(), x.shape[channel_dim]
    keys = torch.empty(n, dtype=key_dtype(num_codes), device=x.device)
    inverse_norms = torch.empty(n, dtype=torch.float64, device=x.device) if unit else None
    block_n, block_d = tile(x, channel_dim)
    with torch.cuda.device_of(x):
        _row_keys_kernel[(triton.cdiv(n, block_n),)](
            x,
            codes,
            as_bytes(mask),
            keys,
            inverse_norms,
            n,
            num_codes,
            dim,
            codes.stride(0),
            *joint_layout(channel_dim, x),
            SKIP_NONFINITE=skip_nonfinite,
            BLOCK_N=block_n,
            BLOCK_D=block_d,
        )
    return keys, inverse_norms


def as_bytes(mask: Tensor | None) -> Tensor | None:
    """The mask as (N,) bytes, by position."""
    return None if mask is None else mask.contiguous().view(torch.uint8)
