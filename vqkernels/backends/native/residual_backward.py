"""residual_backward: the gradients of residual."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vqkernels._layout import like_x
from vqkernels.backends.native._arguments import ESTIMATOR, flat_mask, pointer, rows_of, threads
from vqkernels.backends.native._core import core


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
    levels, k, d = code_remainders.shape
    grad_x = like_x(remainder, dtype) if need_x else remainder.new_empty(0, dtype=dtype)
    books = (1 if shared else levels, k, d) if need_codebooks else (0,)
    grad_codebooks = code_remainders.new_empty(books)
    unmasked = flat_mask(mask)

    def rows(value: Tensor | None) -> Any:
        return None if value is None or not need_x else rows_of(value, channel_dim)

    core.residual_backward(
        ESTIMATOR[estimator],
        rows(x),
        rows(quantized),
        rows(remainder),
        code_remainders.data_ptr() if need_codebooks else 0,
        pointer(unmasked),
        num_rows,
        d,
        k,
        levels,
        shared,
        rows(grad_quantized),
        pointer(grad_loss),
        commitment_weight,
        codebook_weight,
        rows(grad_x),
        grad_codebooks.data_ptr() if need_codebooks else 0,
        threads(remainder.numel() + code_remainders.numel()),
    )
    return grad_x, grad_codebooks
