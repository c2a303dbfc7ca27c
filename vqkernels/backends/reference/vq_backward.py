"""vq_backward: the gradients of vq_forward."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels._layout import as_rows, like_x, write_rows
from vqkernels._numerics import TINY, row_norm, unit_rows
from vqkernels.backends.reference._rotation import rotate_back
from vqkernels.backends.reference._scatter import scatter_rows


def vq_backward(
    grad_quantized: Tensor | None,
    grad_loss: Tensor | None,
    x: Tensor,
    quantized: Tensor,
    indices: Tensor,
    num_codes: int,
    metric: str,
    estimator: str,
    commitment_weight: float,
    codebook_weight: float,
    channel_dim: int,
    need_x: bool,
    need_codebook: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of ``sum(grad_quantized * quantized) + grad_loss * loss`` in x and the codes.

    The estimator's Jacobian replaces that of the assignment, which is zero almost everywhere.
    """
    rows = as_rows(x, channel_dim).double()
    codes = as_rows(quantized, channel_dim).double()
    flat = indices.reshape(-1)
    valid = (flat >= 0)[:, None]
    unit = unit_rows(rows) if metric == "cosine" else rows
    upstream = torch.zeros_like(rows)
    if grad_quantized is not None:
        upstream = as_rows(grad_quantized, channel_dim).double()
    scale = torch.zeros((), dtype=torch.float64, device=x.device)
    if grad_loss is not None:
        scale = grad_loss.double() * 2.0 / (valid.sum() * rows.shape[1]).clamp(min=1)

    grad_x = x.new_empty(0)
    if need_x:
        estimated = rotate_back(upstream, unit, codes) if estimator == "rotation" else upstream
        grad = estimated
        if grad_loss is not None:
            grad = grad + scale * commitment_weight * (unit - codes)
        if metric == "cosine":
            norm = row_norm(rows)
            grad = (grad - unit * (unit * grad).sum(dim=1, keepdim=True)) / norm
            grad = torch.where(norm < TINY, 0.0, grad)
        grad = torch.where(valid, grad, upstream)
        grad_x = write_rows(grad.to(x.dtype), like_x(x, x.dtype), channel_dim)

    grad_codes = quantized.new_empty(0)
    if need_codebook:
        error = torch.where(valid, scale * codebook_weight * (codes - unit), 0.0)
        target = torch.where(flat >= 0, flat, num_codes)
        grad_codes = scatter_rows(error, target, num_codes + 1)[:num_codes].to(quantized.dtype)
    return grad_x, grad_codes
