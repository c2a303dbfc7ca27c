"""The gradient in x of a quantizer step: estimator, commitment, normalisation.

Shared by the backwards of one quantizer and of a residual one: they differ in where the difference
of a row and its code comes from. float64 throughout, as the specification has it: the pass waits
for memory, not for arithmetic.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vqkernels._numerics import TINY
from vqkernels.backends.triton._layouts import joint_layout, row_start, split_row
from vqkernels.backends.triton._tiles import tile
from vqkernels.backends.triton._valid import loss_scale

_TINY = tl.constexpr(TINY)


@triton.jit
def _row_tile(row_ptr, column, stride, inside):
    value = tl.load(row_ptr[:, None] + column[None, :] * stride, mask=inside, other=0.0)
    return value.to(tl.float32).to(tl.float64)


@triton.jit
def _nonzero(value):
    return tl.where(value == 0, 1.0, value)


@triton.jit
def _rotated_back(grad, x, q, inverse_x, inverse_q, half_grad, q_grad, ratio, defined):
    """(|q|/|x|) R^T grad: ``reference._rotate_back``, its row sums given.

    half_grad = (h . grad) / |h|^2 with h = x/|x| + q/|q|, and q_grad = (q/|q|) . grad.
    """
    direction = x * inverse_x[:, None]
    half = direction + q * inverse_q[:, None]
    turned = grad - 2.0 * half * half_grad[:, None] + 2.0 * direction * q_grad[:, None]
    return tl.where(defined[:, None], ratio[:, None] * turned, grad)


@triton.jit(do_not_specialize=["num_rows", "num_parts"])
def _gradient_kernel(
    grad_quantized_ptr,  # (N, D) through strides, fp32 | fp16 | bf16 | None: zeros
    grad_loss_ptr,  # () fp32 | None: no loss term
    x_ptr,  # (N, D) through strides, fp32 | fp16 | bf16 | None unless needed
    quantized_ptr,  # (N, D) through strides, fp32 | None unless needed
    left_ptr,  # (N, D) through strides, fp32: what is left of x | None: x (or x/|x|) - quantized
    indices_ptr,  # (N,) any integer through a stride, negative where masked | None: nowhere
    valid_ptr,  # (parts,) int32
    grad_x_ptr,  # (N, D) through strides, fp32 | fp16 | bf16
    num_rows,
    num_parts,
    dim,
    index_stride,
    commitment_weight,
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
    q_stride0,
    q_stride1,
    q_stride2,
    q_stride3,
    q_dim_stride,
    l_stride0,
    l_stride1,
    l_stride2,
    l_stride3,
    l_dim_stride,
    out_stride0,
    out_stride1,
    out_stride2,
    out_stride3,
    out_dim_stride,
    IS_COSINE: tl.constexpr,
    ROTATES: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    row_ok = row < num_rows
    valid = row_ok
    if indices_ptr is not None:
        valid = tl.load(indices_ptr + row * index_stride, mask=row_ok, other=-1) >= 0
    i0, i1, i2, i3 = split_row(row, size1, size2, size3)
    g_start = row_start(i0, i1, i2, i3, g_stride0, g_stride1, g_stride2, g_stride3)
    x_start = row_start(i0, i1, i2, i3, x_stride0, x_stride1, x_stride2, x_stride3)
    q_start = row_start(i0, i1, i2, i3, q_stride0, q_stride1, q_stride2, q_stride3)
    l_start = row_start(i0, i1, i2, i3, l_stride0, l_stride1, l_stride2, l_stride3)
    out_start = row_start(i0, i1, i2, i3, out_stride0, out_stride1, out_stride2, out_stride3)
    scale = 0.0
    if grad_loss_ptr is not None:
        scale = loss_scale(grad_loss_ptr, valid_ptr, num_parts, dim, 256) * commitment_weight

    # Row sums come first, each in a pass of its own over the channels, which lie in L1 by then.
    inverse_x = tl.full((BLOCK_N,), 1.0, tl.float64)
    short = tl.zeros((BLOCK_N,), tl.int1)
    if IS_COSINE or ROTATES:
        xx = tl.zeros((BLOCK_N,), tl.float64)
        qq = tl.zeros((BLOCK_N,), tl.float64)
        for start in range(0, dim, BLOCK_D):
            column = start + tl.arange(0, BLOCK_D).to(tl.int64)
            inside = row_ok[:, None] & (column < dim)[None, :]
            x = _row_tile(x_ptr + x_start, column, x_dim_stride, inside)
            xx += tl.sum(x * x, axis=1)
            if ROTATES:
                q = _row_tile(quantized_ptr + q_start, column, q_dim_stride, inside)
                qq += tl.sum(q * q, axis=1)
        tiny = tl.full((BLOCK_N,), _TINY, tl.float64)
        x_norm = tl.sqrt(xx)
        short = x_norm < tiny
        length = x_norm  # of x as it is compared
        if IS_COSINE:
            inverse_x = 1.0 / tl.maximum(x_norm, tiny)
            length = x_norm * inverse_x
        q_norm = tl.sqrt(qq)
        inverse_q = 1.0 / _nonzero(q_norm)
        ratio = q_norm / _nonzero(length)
        defined = (x_norm != 0) & (q_norm != 0)
    if ROTATES:
        # x/|x|: the same for x and for x/max(|x|, TINY).
        to_direction = 1.0 / _nonzero(x_norm)
        half_half = tl.zeros((BLOCK_N,), tl.float64)
        half_grad = tl.zeros((BLOCK_N,), tl.float64)
        q_grad = tl.zeros((BLOCK_N,), tl.float64)
        if grad_quantized_ptr is not None:
            for start in range(0, dim, BLOCK_D):
                column = start + tl.arange(0, BLOCK_D).to(tl.int64)
                inside = row_ok[:, None] & (column < dim)[None, :]
                g = _row_tile(grad_quantized_ptr + g_start, column, g_dim_stride, inside)
                x = _row_tile(x_ptr + x_start, column, x_dim_stride, inside)
                q = _row_tile(quantized_ptr + q_start, column, q_dim_stride, inside)
                q = q * inverse_q[:, None]
                half = x * to_direction[:, None] + q
                half_half += tl.sum(half * half, axis=1)
                half_grad += tl.sum(half * g, axis=1)
                q_grad += tl.sum(q * g, axis=1)
            half_grad = half_grad / _nonzero(half_half)

    # With cosine the gradient in x/|x| is projected: its product with x/|x| is needed first.
    along = tl.zeros((BLOCK_N,), tl.float64)
    for writes in tl.static_range(0 if IS_COSINE else 1, 2):
        for start in range(0, dim, BLOCK_D):
            column = start + tl.arange(0, BLOCK_D).to(tl.int64)
            inside = row_ok[:, None] & (column < dim)[None, :]
            g = tl.zeros((BLOCK_N, BLOCK_D), tl.float64)
            if grad_quantized_ptr is not None:
                g = _row_tile(grad_quantized_ptr + g_start, column, g_dim_stride, inside)
            grad = g
            if ROTATES or IS_COSINE or (grad_loss_ptr is not None and left_ptr is None):
                x = _row_tile(x_ptr + x_start, column, x_dim_stride, inside)
                q = _row_tile(quantized_ptr + q_start, column, q_dim_stride, inside)
            if ROTATES:
                grad = _rotated_back(
                    g, x, q, to_direction, inverse_q, half_grad, q_grad, ratio, defined
                )
            if IS_COSINE:
                x = x * inverse_x[:, None]
            if grad_loss_ptr is not None:
                if left_ptr is not None:
                    left = _row_tile(left_ptr + l_start, column, l_dim_stride, inside)
                else:
                    left = x - q
                grad += scale * left
            if writes == 0:
                along += tl.sum(x * grad, axis=1)
            else:
                if IS_COSINE:
                    grad = (grad - x * along[:, None]) * inverse_x[:, None]
                    grad = tl.where(short[:, None], 0.0, grad)
                grad = tl.where(valid[:, None], grad, g).to(tl.float32)
                at = grad_x_ptr + (out_start[:, None] + column[None, :] * out_dim_stride)
                tl.store(at, grad.to(grad_x_ptr.dtype.element_ty), mask=inside)


def write_gradient(
    grad_x: Tensor,
    grad_quantized: Tensor | None,
    grad_loss: Tensor | None,
    x: Tensor | None,
    quantized: Tensor | None,
    left: Tensor | None,
    indices: Tensor | None,
    valid: Tensor | None,
    channel_dim: int,
    *,
    metric: str,
    estimator: str,
    commitment_weight: float,
) -> None:
    """Writes the gradient in x; ``indices`` is (N,), or None where no row is masked, and ``valid``
    what ``count_valid`` said of it.

    ``joint_layout`` of the tensors must exist. The kernel says which of them may be None.
    """
    dim = grad_x.shape[channel_dim]
    n = grad_x.numel() // dim
    block_n, block_d = tile(grad_x, channel_dim)
    with torch.cuda.device_of(grad_x):
        _gradient_kernel[(triton.cdiv(n, block_n),)](
            grad_quantized,
            grad_loss,
            x,
            quantized,
            left,
            indices,
            valid,
            grad_x,
            n,
            0 if valid is None else valid.numel(),
            dim,
            0 if indices is None else indices.stride(0),
            commitment_weight,
            *joint_layout(channel_dim, grad_quantized, x, quantized, left, grad_x),
            IS_COSINE=metric == "cosine",
            ROTATES=estimator == "rotation",
            BLOCK_N=block_n,
            BLOCK_D=block_d,
            num_warps=8,  # four elements per thread: each brings its row's sums and offsets along
        )
