"""vq_forward: search (or given codes), gather, error and statistics in one pass over x."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels._layout import like_x, row_shape
from vqkernels.backends.native._arguments import (
    METRIC,
    contiguous_codes,
    flat_indices,
    flat_mask,
    pointer,
    prepared_block,
    rows_of,
    threads,
)
from vqkernels.backends.native._core import core


def vq_forward(
    x: Tensor,
    codebook: Tensor,
    prepared: list[Tensor] | None,
    mask: Tensor | None,
    metric: str,
    channel_dim: int,
    statistics: bool,
    given: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    k, d = codebook.shape
    quantized = like_x(x, torch.float32)
    indices = x.new_empty(row_shape(x, channel_dim), dtype=torch.int64)
    mse = x.new_empty((), dtype=torch.float32)
    counts = x.new_empty(k, dtype=torch.int64)
    sums = x.new_empty(k if statistics else 0, d, dtype=torch.float32)
    codes = contiguous_codes(codebook)
    kept = flat_mask(mask)
    taken = None if given is None else flat_indices(given)
    core.vq_forward(
        rows_of(x, channel_dim),
        codes.data_ptr(),
        k,
        METRIC[metric],
        prepared_block(prepared),
        pointer(taken),
        pointer(kept),
        indices.data_ptr(),
        rows_of(quantized, channel_dim),
        mse.data_ptr(),
        counts.data_ptr(),
        sums.data_ptr() if statistics else 0,
        threads(x.numel() * (k if given is None else 1)),
    )
    return quantized, indices, mse, counts, sums
