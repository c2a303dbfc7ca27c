"""residual_backward: the gradients of residual."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels._layout import as_rows, like_x, write_rows
from vqkernels.backends.reference._rotation import rotate_back


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
    """Gradients of ``sum(grad_quantized * quantized) + grad_loss * loss`` in x and the codes.

    The derivative of every level's term is a multiple of what the level leaves, r_l - c_l, and the
    forward has added these up. The estimator acts once, between x and the sum of its codes.
    """
    valid = remainder.new_ones(num_rows, dtype=torch.bool) if mask is None else mask.reshape(-1)
    scale = None
    if grad_loss is not None:
        size = remainder.shape[channel_dim] if need_x else code_remainders.shape[2]
        scale = grad_loss.double() * 2.0 / (valid.sum() * size).clamp(min=1)

    grad_x = remainder.new_empty(0, dtype=dtype)
    if need_x:
        left = as_rows(remainder, channel_dim).double()
        upstream = torch.zeros_like(left)
        if grad_quantized is not None:
            upstream = as_rows(grad_quantized, channel_dim).double()
        grad = upstream
        if estimator == "rotation" and x is not None and quantized is not None:
            ends = (as_rows(value, channel_dim).double() for value in (x, quantized))
            grad = rotate_back(upstream, *ends)
        if scale is not None:
            grad = grad + scale * commitment_weight * left
        grad = torch.where(valid[:, None], grad, upstream)
        grad_x = write_rows(grad.to(dtype), like_x(remainder, dtype), channel_dim)

    grad_codes = code_remainders.new_empty(0)
    if need_codebooks:
        sums = code_remainders.double()
        sums = sums.sum(dim=0, keepdim=True) if shared else sums
        if scale is None:
            sums = torch.zeros_like(sums)
        else:
            sums = -scale * codebook_weight * sums
        grad_codes = sums.to(code_remainders.dtype)
    return grad_x, grad_codes
