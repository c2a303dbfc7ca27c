"""fsq in Triton: every channel to its level, and the index of the vector."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vqkernels._layout import like_x, row_shape
from vqkernels._levels import LevelTables, level_tables
from vqkernels.backends.triton._layouts import joint_layout, row_start, split_row

_ELEMENTS = 1024


@triton.jit
def _clamped(value):
    return tl.minimum(tl.maximum(value, -1.0), 1.0)


@triton.jit
def _tanh(value):
    decay = tl.exp(-2.0 * tl.abs(value))
    size = (1.0 - decay) / (1.0 + decay)
    return tl.where(value < 0, -size, size)


@triton.jit(do_not_specialize=["num_rows"])
def _fsq_kernel(
    x_ptr,  # (N, D) through strides, fp32 | fp16 | bf16
    mask_ptr,  # (N,) bool | None: no row is masked
    levels_ptr,  # (D,) int64
    basis_ptr,  # (D,) int64
    start_ptr,  # (D,) int64: where the limits of a channel begin
    limits_ptr,  # fp32, L + 1 per channel, the outermost infinite
    shift_ptr,  # (D,) fp64
    gain_ptr,  # (D,) fp64
    bias_ptr,  # (D,) fp64
    half_ptr,  # (D,) fp64
    quantized_ptr,  # (N, D) through strides, as x
    indices_ptr,  # (N,) int64
    errors_ptr,  # (programs,) fp64: sum of the squared errors
    valid_ptr,  # (programs,) int64
    counts_ptr,  # (K,) int64, zeros | None: not counted
    num_rows,
    dim,
    size1,
    size2,
    size3,
    x_stride0,
    x_stride1,
    x_stride2,
    x_stride3,
    x_dim_stride,
    q_stride0,
    q_stride1,
    q_stride2,
    q_stride3,
    q_dim_stride,
    STRIDE: tl.constexpr,
    CLAMPS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    column = tl.arange(0, BLOCK_D).to(tl.int64)
    row_ok, column_ok = row < num_rows, column < dim
    valid = row_ok
    if mask_ptr is not None:
        valid = tl.load(mask_ptr + row, mask=row_ok, other=0) != 0
    top = tl.load(levels_ptr + column, mask=column_ok, other=1) - 1
    basis = tl.load(basis_ptr + column, mask=column_ok, other=0)
    limits = limits_ptr + tl.load(start_ptr + column, mask=column_ok, other=0)
    shift = tl.load(shift_ptr + column, mask=column_ok, other=0.0).to(tl.float32)
    gain = tl.load(gain_ptr + column, mask=column_ok, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + column, mask=column_ok, other=0.0).to(tl.float32)
    half = tl.load(half_ptr + column, mask=column_ok, other=1.0).to(tl.float32)[None, :]

    inside = row_ok[:, None] & column_ok[None, :]
    i0, i1, i2, i3 = split_row(row, size1, size2, size3)
    x_start = row_start(i0, i1, i2, i3, x_stride0, x_stride1, x_stride2, x_stride3)
    x_at = x_ptr + (x_start[:, None] + column[None, :] * x_dim_stride)
    x = tl.load(x_at, mask=inside, other=0.0).to(tl.float32)
    finite = tl.abs(x) < float("inf")
    left = tl.max((~finite).to(tl.int32), axis=1) > 0
    y = tl.where(finite, x, 0.0) + shift[None, :]
    if CLAMPS:
        bounded = gain[None, :] * _clamped(y) + bias[None, :]
    else:
        bounded = gain[None, :] * _tanh(y) + bias[None, :]

    # Off by one at most, near a limit; the limits decide.
    place = tl.maximum((bounded * half + half) / STRIDE + 0.5, 0.0)
    near = tl.minimum(place.to(tl.int64), top[None, :])
    low = tl.load(limits[None, :] + near, mask=inside, other=0.0)
    high = tl.load(limits[None, :] + near + 1, mask=inside, other=0.0)
    digit = near + (x >= high).to(tl.int64) - (x < low).to(tl.int64)

    index = tl.sum(digit * basis[None, :], axis=1)
    index = tl.where(valid, tl.where(left, 0, index), -1)
    tl.store(indices_ptr + row, index, mask=row_ok)
    code = tl.div_rn(STRIDE * digit.to(tl.float32) - half, tl.zeros_like(x) + half)
    code = tl.where(left[:, None], float("nan"), code)
    error = tl.where(inside & valid[:, None], (bounded - code).to(tl.float64), 0.0)
    tl.store(errors_ptr + tl.program_id(0), tl.sum(error * error))
    tl.store(valid_ptr + tl.program_id(0), tl.sum(valid.to(tl.int64)))
    if counts_ptr is not None:
        tl.atomic_add(counts_ptr + index, 1, mask=valid & ~left, sem="relaxed")

    q_start = row_start(i0, i1, i2, i3, q_stride0, q_stride1, q_stride2, q_stride3)
    q_at = quantized_ptr + (q_start[:, None] + column[None, :] * q_dim_stride)
    code = tl.where(valid[:, None], code, x)
    tl.store(q_at, code.to(quantized_ptr.dtype.element_ty), mask=inside)


def fsq(
    x: Tensor,
    mask: Tensor | None,
    levels: tuple[int, ...],
    symmetric: bool,
    bound: str,
    num_counted: int,
    channel_dim: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As ``reference.fsq``."""
    quantized = like_x(x, x.dtype)
    layout = joint_layout(channel_dim, x, quantized)
    if layout is None:
        step = fsq(x.contiguous(), mask, levels, symmetric, bound, num_counted, channel_dim)
        return quantized.copy_(step[0]), *step[1:]
    tables = level_tables(levels, symmetric, bound, x.device)
    indices = torch.empty(row_shape(x, channel_dim), dtype=torch.int64, device=x.device)
    n, blocks = indices.numel(), blocks_of(levels)
    programs = triton.cdiv(n, blocks["BLOCK_N"])
    errors = torch.empty(programs, dtype=torch.float64, device=x.device)
    valid = torch.empty(programs, dtype=torch.int64, device=x.device)
    counts = torch.zeros(num_counted, dtype=torch.int64, device=x.device)
    if n:
        with torch.cuda.device_of(x):
            _fsq_kernel[(programs,)](
                x,
                flat_mask(mask),
                *_constants(tables),
                quantized,
                indices,
                errors,
                valid,
                counts if num_counted else None,
                n,
                len(levels),
                *layout,
                STRIDE=tables.stride,
                CLAMPS=bound == "clamp",
                **blocks,
            )
    mse = (errors.sum() / (valid.sum() * len(levels)).clamp(min=1)).float()
    return quantized, indices, mse, counts


def _constants(tables: LevelTables) -> tuple[Tensor, ...]:
    integers = (tables.levels, tables.basis, tables.start)
    return (*integers, tables.rounded, tables.shift, tables.gain, tables.bias, tables.half)


def blocks_of(levels: tuple[int, ...]) -> dict[str, int]:
    """A program takes whole rows: there are 62 channels at most."""
    columns = triton.next_power_of_2(len(levels))
    return {"BLOCK_N": _ELEMENTS // columns, "BLOCK_D": columns}


def flat_mask(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask.contiguous()
