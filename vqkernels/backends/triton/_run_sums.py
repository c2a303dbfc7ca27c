"""Sums over the runs of equal codes, in float64 and in an order that depends on nothing but them.

Which rows form a run is a stable sort's result, and where it is cut follows from its place: full
windows of 256 places that lie inside one run are added first, one program each, then one program
per code adds what precedes its windows, what follows them, and the windows. No two programs write
one element, so a code that takes all rows costs no more than N spread ones.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vqkernels.backends.triton._layouts import joint_layout, row_start, split_row
from vqkernels.backends.triton._runs import Runs
from vqkernels.backends.triton._tiles import tile_of_length

_WINDOW = 256


@triton.jit
def _addends(
    x_ptr,
    minuend_ptr,
    inverse_norms_ptr,
    order_ptr,
    place,
    place_ok,
    column,
    column_ok,
    size1,
    size2,
    size3,
    x_stride0,
    x_stride1,
    x_stride2,
    x_stride3,
    x_dim_stride,
    m_stride0,
    m_stride1,
    m_stride2,
    m_stride3,
    m_dim_stride,
):
    """float64 (places, columns): x, x/|x|, or either subtracted from the minuend; else 0."""
    row = tl.load(order_ptr + place, mask=place_ok, other=0)
    i0, i1, i2, i3 = split_row(row, size1, size2, size3)
    inside = place_ok[:, None] & column_ok[None, :]
    start = row_start(i0, i1, i2, i3, x_stride0, x_stride1, x_stride2, x_stride3)
    at = x_ptr + (start[:, None] + column[None, :] * x_dim_stride)
    value = tl.load(at, mask=inside, other=0.0).to(tl.float32).to(tl.float64)
    if inverse_norms_ptr is not None:
        value = value * tl.load(inverse_norms_ptr + row, mask=place_ok, other=0.0)[:, None]
    if minuend_ptr is not None:
        start = row_start(i0, i1, i2, i3, m_stride0, m_stride1, m_stride2, m_stride3)
        at = minuend_ptr + (start[:, None] + column[None, :] * m_dim_stride)
        value = tl.load(at, mask=inside, other=0.0).to(tl.float64) - value
    return value


@triton.jit(do_not_specialize=["num_codes"])
def _window_sums_kernel(
    x_ptr,  # (N, D) through strides, fp32 | fp16 | bf16
    minuend_ptr,  # (N, D) through strides, fp32 | None
    inverse_norms_ptr,  # (N,) fp64 | None
    keys_ptr,  # (N,) int16 | int32, ascending
    order_ptr,  # (N,) int64
    windows_ptr,  # (N // WINDOW, D) fp64
    num_codes,
    dim,
    size1,
    size2,
    size3,
    x_stride0,
    x_stride1,
    x_stride2,
    x_stride3,
    x_dim_stride,
    m_stride0,
    m_stride1,
    m_stride2,
    m_stride3,
    m_dim_stride,
    WINDOW: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    window = tl.program_id(0).to(tl.int64)
    key = tl.load(keys_ptr + window * WINDOW)
    if (tl.load(keys_ptr + window * WINDOW + WINDOW - 1) == key) & (key < num_codes):
        column = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D).to(tl.int64)
        total = tl.zeros((BLOCK_R, BLOCK_D), tl.float64)
        for offset in tl.range(0, WINDOW, BLOCK_R, loop_unroll_factor=1):  # else registers spill
            place = window * WINDOW + offset + tl.arange(0, BLOCK_R)
            total += _addends(
                x_ptr,
                minuend_ptr,
                inverse_norms_ptr,
                order_ptr,
                place,
                place >= 0,
                column,
                column < dim,
                size1,
                size2,
                size3,
                x_stride0,
                x_stride1,
                x_stride2,
                x_stride3,
                x_dim_stride,
                m_stride0,
                m_stride1,
                m_stride2,
                m_stride3,
                m_dim_stride,
            )
        tl.store(windows_ptr + window * dim + column, tl.sum(total, axis=0), mask=column < dim)


@triton.jit(do_not_specialize=["num_codes"])
def _run_sums_kernel(
    x_ptr,  # (N, D) through strides, fp32 | fp16 | bf16
    minuend_ptr,  # (N, D) through strides, fp32 | None
    inverse_norms_ptr,  # (N,) fp64 | None
    order_ptr,  # (N,) int64
    starts_ptr,  # (K,) int64
    counts_ptr,  # (K,) int64
    windows_ptr,  # (N // WINDOW, D) fp64
    factor_ptr,  # () fp32 | None
    sums_ptr,  # (K, D) fp32
    num_codes,
    dim,
    weight,
    size1,
    size2,
    size3,
    x_stride0,
    x_stride1,
    x_stride2,
    x_stride3,
    x_dim_stride,
    m_stride0,
    m_stride1,
    m_stride2,
    m_stride3,
    m_dim_stride,
    WINDOW: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    code = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D).to(tl.int64)
    column_ok = column < dim
    start = tl.load(starts_ptr + code)
    end = start + tl.load(counts_ptr + code)
    # Windows [first, last) lie inside the run; without any, all of it counts as the head.
    first = (start + WINDOW - 1) // WINDOW
    last = tl.maximum(end // WINDOW, first)
    head = tl.where(first < last, first * WINDOW, end) - start
    tail = tl.where(first < last, end - last * WINDOW, 0)

    total = tl.zeros((BLOCK_R, BLOCK_D), tl.float64)
    for offset in range(0, head + tail, BLOCK_R):
        turn = offset + tl.arange(0, BLOCK_R)
        place = tl.where(turn < head, start + turn, last * WINDOW + turn - head)
        total += _addends(
            x_ptr,
            minuend_ptr,
            inverse_norms_ptr,
            order_ptr,
            place,
            turn < head + tail,
            column,
            column_ok,
            size1,
            size2,
            size3,
            x_stride0,
            x_stride1,
            x_stride2,
            x_stride3,
            x_dim_stride,
            m_stride0,
            m_stride1,
            m_stride2,
            m_stride3,
            m_dim_stride,
        )
    for window in range(first, last, BLOCK_R):
        row = window + tl.arange(0, BLOCK_R)
        inside = (row < last)[:, None] & column_ok[None, :]
        total += tl.load(windows_ptr + row[:, None] * dim + column, mask=inside, other=0.0)

    sums = tl.sum(total, axis=0)
    if factor_ptr is not None:
        counted = tl.load(starts_ptr + num_codes - 1) + tl.load(counts_ptr + num_codes - 1)
        elements = tl.maximum(counted * dim, 1).to(tl.float64)
        sums = sums * (tl.load(factor_ptr).to(tl.float64) * 2.0 * weight / elements)
    tl.store(sums_ptr + code * dim + column, sums.to(tl.float32), mask=column_ok)


def run_sums(
    x: Tensor,
    runs: Runs,
    sums: Tensor,
    channel_dim: int,
    *,
    inverse_norms: Tensor | None = None,
    minuend: Tensor | None = None,
    factor: Tensor | None = None,
    weight: float = 1.0,
) -> Tensor:
    """Writes the sum over every run into ``sums``, (K, D) float32 contiguous, and returns it.

    Added is x, times its ``inverse_norms`` if given, and subtracted from the ``minuend`` if given.
    With ``factor``, a scalar on the device, the sums are multiplied by 2 * factor * weight / (the
    elements of all rows that count). ``joint_layout`` of x and the minuend must exist.
    """
    num_codes, dim = sums.shape
    num_windows = runs.order.numel() // _WINDOW
    windows = torch.empty(num_windows, dim, dtype=torch.float64, device=x.device)
    block_r, block_d = tile_of_length(dim)
    blocks = triton.cdiv(dim, block_d)
    layout = joint_layout(channel_dim, x, minuend)
    tiles = {"WINDOW": _WINDOW, "BLOCK_R": block_r, "BLOCK_D": block_d}
    rows = (x, minuend, inverse_norms)
    with torch.cuda.device_of(x):
        _window_sums_kernel[(num_windows, blocks)](
            *rows, runs.keys, runs.order, windows, num_codes, dim, *layout, **tiles
        )
        _run_sums_kernel[(num_codes, blocks)](
            *rows,
            *runs[1:],
            windows,
            factor,
            sums,
            num_codes,
            dim,
            weight,
            *layout,
            **tiles,
        )
    return sums
