"""soft_assign_backward: the gradients of soft_assign."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels._layout import like_x
from vqkernels.backends.native._arguments import (
    contiguous_codes,
    flat_mask,
    pointer,
    rows_of,
    threads,
)
from vqkernels.backends.native._core import core


def soft_assign_backward(
    grad_logsumexp: Tensor | None,
    grad_mean_logit: Tensor | None,
    grad_usage: Tensor | None,
    x: Tensor,
    codebook: Tensor,
    mask: Tensor | None,
    logsumexp: Tensor,
    mean_logit: Tensor,
    temperature: float,
    channel_dim: int,
    need_x: bool,
    need_codebook: bool,
) -> tuple[Tensor, Tensor]:
    grad_x = like_x(x, x.dtype) if need_x else x.new_empty(0)
    shape = codebook.shape if need_codebook else (0,)
    grad_codebook = codebook.new_empty(shape, dtype=torch.float32)
    codes = contiguous_codes(codebook)
    # Gradients of sums arrive expanded, with strides of 0.
    of_rows = [_contiguous(grad, torch.float64) for grad in (grad_logsumexp, grad_mean_logit)]
    of_codes = _contiguous(grad_usage, torch.float32)
    kept = flat_mask(mask)
    results = [_contiguous(value, torch.float64) for value in (logsumexp, mean_logit)]
    core.soft_assign_backward(
        *map(pointer, of_rows),
        pointer(of_codes),
        rows_of(x, channel_dim),
        codes.data_ptr(),
        len(codes),
        pointer(kept),
        *map(pointer, results),
        temperature,
        rows_of(grad_x, channel_dim) if need_x else None,
        grad_codebook.data_ptr() if need_codebook else 0,
        threads(x.numel() * len(codes)),
    )
    return grad_x, grad_codebook


def _contiguous(value: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if value is None else value.to(dtype).contiguous()
