"""residual_backward in Triton: both gradients are sums of the forward, scaled and turned."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vqkernels._layout import like_x
from vqkernels.backends.triton._gradient import write_gradient
from vqkernels.backends.triton._layouts import joint_layout
from vqkernels.backends.triton._valid import count_valid, loss_scale

_BLOCK = 1024


@triton.jit(do_not_specialize=["num_parts", "num_values", "levels"])
def _code_gradient_kernel(
    code_remainders_ptr,  # (L, K, D) fp32
    grad_loss_ptr,  # () fp32
    valid_ptr,  # (parts,) int32, rows that are not masked
    grad_codes_ptr,  # (L, K, D) fp32, or (1, K, D): the sum over the levels
    num_parts,
    num_values,  # elements of grad_codes
    levels,  # that each of them adds: 1 or L
    dim,
    codebook_weight,
    BLOCK: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < num_values
    scale = loss_scale(grad_loss_ptr, valid_ptr, num_parts, dim, 256) * codebook_weight
    total = tl.zeros((BLOCK,), tl.float64)
    for _ in range(levels):
        total += tl.load(code_remainders_ptr + at, mask=inside, other=0.0).to(tl.float64)
        code_remainders_ptr += num_values
    tl.store(grad_codes_ptr + at, (-scale * total).to(tl.float32), mask=inside)


def residual_backward(
    grad_quantized: Tensor | None,
    grad_loss: Tensor | None,
    x: Tensor | None,
    quantized: Tensor | None,
    remainder: Tensor,
    code_remainders: Tensor,
    mask: Tensor | None,
    num_rows: int,
    shared: bool,
    estimator: str,
    commitment_weight: float,
    codebook_weight: float,
    channel_dim: int,
    dtype: torch.dtype,
    need_x: bool,
    need_codebooks: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients in x and the codes as ``reference.residual_backward`` defines them."""
    levels, k, dim = code_remainders.shape
    marks = None if mask is None else mask.reshape(-1).to(torch.int8) - 1
    valid = None if grad_loss is None else count_valid(marks, num_rows, remainder.device)
    grad_x = remainder.new_empty(0, dtype=dtype)
    if need_x:
        grad_x = like_x(remainder, dtype)
        turns = estimator == "rotation" and x is not None and quantized is not None
        ends = (x, quantized) if turns else (None, None)
        rows = (grad_quantized, *ends, remainder)
        written = grad_x
        if joint_layout(channel_dim, *rows, grad_x) is None:
            rows = tuple(None if row is None else row.contiguous() for row in rows)
            written = torch.empty_like(grad_x, memory_format=torch.contiguous_format)
        write_gradient(
            *(written, rows[0], grad_loss, *rows[1:], marks, valid, channel_dim),
            metric="l2",
            estimator="rotation" if turns else "straight_through",
            commitment_weight=commitment_weight,
        )
        if written is not grad_x:
            grad_x.copy_(written)
    if not need_codebooks:
        return grad_x, code_remainders.new_empty(0)
    books = 1 if shared else levels
    if valid is None:
        return grad_x, code_remainders.new_zeros((books, k, dim))
    grad_codes = code_remainders.new_empty((books, k, dim))
    with torch.cuda.device_of(grad_codes):
        _code_gradient_kernel[(triton.cdiv(grad_codes.numel(), _BLOCK),)](
            code_remainders,
            grad_loss,
            valid,
            grad_codes,
            valid.numel(),
            grad_codes.numel(),
            levels if shared else 1,
            dim,
            codebook_weight,
            BLOCK=_BLOCK,
        )
    return grad_x, grad_codes
