"""vq_forward: gather, error and statistics."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels._layout import as_rows, like_x, write_rows
from vqkernels._numerics import fixed_sum, unit_rows, wide
from vqkernels.backends.reference.code_sums import code_sums


def vq_forward(
    x: Tensor,
    codebook: Tensor,
    indices: Tensor,
    mask: Tensor | None,
    metric: str,
    channel_dim: int,
    statistics: bool,
    num_averaged: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """What follows the search: gather, squared error, counts and sums.

    Returns (quantized, indices, mse, counts, sums): ``quantized`` holds the code rows unrounded
    (wide), x itself where masked and NaN for non-finite rows; masked indices become -1. The mean
    is over ``num_averaged`` rows, if given, and not over those that are unmasked.
    """
    dtype = wide(x.dtype, codebook.dtype)
    rows = as_rows(x, channel_dim)
    flat = indices.reshape(-1)
    valid = torch.ones_like(flat, dtype=torch.bool) if mask is None else mask.reshape(-1)
    flat = torch.where(valid, flat, -1)

    chosen = codebook.to(dtype)[flat.clamp(min=0)]
    chosen = torch.where(rows.isfinite().all(dim=1)[:, None], chosen, torch.nan)
    compared = unit_rows(rows.double()) if metric == "cosine" else rows.double()
    error = torch.where(valid[:, None], compared - chosen.double(), 0.0)
    num_averaged = valid.sum() if num_averaged is None else num_averaged
    count = (num_averaged * rows.shape[1]).clamp(min=1)
    mse = (fixed_sum(error.square().sum(dim=1)) / count).to(dtype)

    quantized = torch.where(valid[:, None], chosen, rows.to(dtype))
    counts, sums = code_sums(
        x, flat, None, codebook.shape[0], channel_dim, unit=metric == "cosine", skip_nonfinite=True
    )
    return (
        write_rows(quantized, like_x(x, dtype), channel_dim),
        flat.reshape(indices.shape),
        mse,
        counts,
        sums.to(dtype) if statistics else sums.new_empty(0, rows.shape[1], dtype=dtype),
    )
