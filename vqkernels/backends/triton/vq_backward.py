"""vq_backward in Triton: one pass for the gradient in x, sorted sums for that in the codes."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels._layout import like_x
from vqkernels.backends.triton._gradient import write_gradient
from vqkernels.backends.triton._layouts import joint_layout
from vqkernels.backends.triton._row_facts import row_keys
from vqkernels.backends.triton._run_sums import run_sums
from vqkernels.backends.triton._runs import find_runs
from vqkernels.backends.triton._valid import count_valid


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
    """Gradients in x and the codes as ``reference.vq_backward`` defines them."""
    grad_x = like_x(x, x.dtype) if need_x else x.new_empty(0)
    rows = (grad_quantized, x, quantized, grad_x if need_x else None)
    if joint_layout(channel_dim, *rows) is None:
        g, x, quantized = (None if row is None else row.contiguous() for row in rows[:3])
        options = (metric, estimator, commitment_weight, codebook_weight, channel_dim)
        needs = (need_x, need_codebook)
        saved = (x, quantized, indices, num_codes)
        step = vq_backward(g, grad_loss, *saved, *options, *needs)
        return grad_x.copy_(step[0]), step[1]
    flat = indices.reshape(-1)
    if need_x:
        valid = None if grad_loss is None else count_valid(flat, flat.numel(), x.device)
        write_gradient(
            *(grad_x, grad_quantized, grad_loss, x, quantized, None, flat, valid, channel_dim),
            metric=metric,
            estimator=estimator,
            commitment_weight=commitment_weight,
        )
    if not need_codebook:
        return grad_x, quantized.new_empty(0)
    shape = (num_codes, x.shape[channel_dim])
    if grad_loss is None:
        return grad_x, quantized.new_zeros(shape)
    keys, inverse_norms = row_keys(
        x, flat, None, num_codes, channel_dim, unit=metric == "cosine", skip_nonfinite=False
    )
    grad_codes = run_sums(
        x,
        find_runs(keys, num_codes),
        torch.empty(shape, dtype=torch.float32, device=x.device),
        channel_dim,
        inverse_norms=inverse_norms,
        minuend=quantized,
        factor=grad_loss,
        weight=codebook_weight,
    )
    return grad_x, grad_codes
