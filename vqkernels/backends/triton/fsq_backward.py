"""fsq_backward in Triton: the gradient of the bound."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vqkernels._layout import like_x
from vqkernels._levels import level_tables
from vqkernels.backends.triton._layouts import joint_layout, row_start, split_row
from vqkernels.backends.triton.fsq import blocks_of, flat_mask


@triton.jit(do_not_specialize=["num_rows"])
def _fsq_backward_kernel(
    grad_ptr,  # (N, D) through strides, fp32 | fp16 | bf16
    x_ptr,  # (N, D) through strides, as grad
    mask_ptr,  # (N,) bool | None: no row is masked
    shift_ptr,  # (D,) fp64
    gain_ptr,  # (D,) fp64
    out_ptr,  # (N, D) through strides, as grad
    num_rows,
    dim,
    size1,
    size2,
    size3,
    g_stride0,
    g_stride1,
    g_stride2,
    g_stride3,
    g_dim_stride,
    x_stride0,
    x_stride1,
    x_stride2,
    x_stride3,
    x_dim_stride,
    out_stride0,
    out_stride1,
    out_stride2,
    out_stride3,
    out_dim_stride,
    CLAMPS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    column = tl.arange(0, BLOCK_D).to(tl.int64)
    row_ok, column_ok = row < num_rows, column < dim
    inside = row_ok[:, None] & column_ok[None, :]
    i0, i1, i2, i3 = split_row(row, size1, size2, size3)
    g_start = row_start(i0, i1, i2, i3, g_stride0, g_stride1, g_stride2, g_stride3)
    x_start = row_start(i0, i1, i2, i3, x_stride0, x_stride1, x_stride2, x_stride3)
    out_start = row_start(i0, i1, i2, i3, out_stride0, out_stride1, out_stride2, out_stride3)
    grad_at = grad_ptr + (g_start[:, None] + column[None, :] * g_dim_stride)
    grad = tl.load(grad_at, mask=inside, other=0.0).to(tl.float32)
    x_at = x_ptr + (x_start[:, None] + column[None, :] * x_dim_stride)
    x = tl.load(x_at, mask=inside, other=0.0).to(tl.float32)
    shift = tl.load(shift_ptr + column, mask=column_ok, other=0.0).to(tl.float32)
    gain = tl.load(gain_ptr + column, mask=column_ok, other=0.0).to(tl.float32)
    size = tl.abs(x + shift[None, :])
    if CLAMPS:
        slope = tl.where(size <= 1.0, 1.0, 0.0)
    else:
        decay = tl.exp(-2.0 * size)
        slope = 4.0 * decay / ((1.0 + decay) * (1.0 + decay))
        slope = tl.where(size < float("inf"), slope, 0.0)
    out = gain[None, :] * slope * grad
    if mask_ptr is not None:
        valid = tl.load(mask_ptr + row, mask=row_ok, other=0) != 0
        out = tl.where(valid[:, None], out, grad)
    out_at = out_ptr + (out_start[:, None] + column[None, :] * out_dim_stride)
    tl.store(out_at, out.to(out_ptr.dtype.element_ty), mask=inside)


def fsq_backward(
    grad_quantized: Tensor,
    x: Tensor,
    mask: Tensor | None,
    levels: tuple[int, ...],
    symmetric: bool,
    bound: str,
    channel_dim: int,
) -> Tensor:
    """As ``reference.fsq_backward``."""
    grad_x = like_x(x, x.dtype)
    layout = joint_layout(channel_dim, grad_quantized, x, grad_x)
    if layout is None:
        dense = (grad_quantized.contiguous(), x.contiguous())
        return grad_x.copy_(fsq_backward(*dense, mask, levels, symmetric, bound, channel_dim))
    if not x.numel():
        return grad_x
    tables = level_tables(levels, symmetric, bound, x.device)
    n, blocks = x.numel() // len(levels), blocks_of(levels)
    with torch.cuda.device_of(x):
        _fsq_backward_kernel[(triton.cdiv(n, blocks["BLOCK_N"]),)](
            grad_quantized,
            x,
            flat_mask(mask),
            tables.shift,
            tables.gain,
            grad_x,
            n,
            len(levels),
            *layout,
            CLAMPS=bound == "clamp",
            **blocks,
        )
    return grad_x
