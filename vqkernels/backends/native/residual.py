"""residual: all levels of the residual quantizer in one pass."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels._layout import like_x, row_shape
from vqkernels.backends.native._arguments import (
    contiguous_codes,
    flat_indices,
    flat_mask,
    pointer,
    prepared_block,
    rows_of,
    threads,
)
from vqkernels.backends.native._core import core


def residual(
    x: Tensor,
    codebooks: Tensor,
    prepared: list[Tensor] | None,
    levels: int,
    mask: Tensor | None,
    kept: Tensor | None,
    channel_dim: int,
    statistics: bool,
    need_x: bool,
    need_codebooks: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    books, k, d = codebooks.shape
    quantized = like_x(x, torch.float32)
    indices = x.new_empty((*row_shape(x, channel_dim), levels), dtype=torch.int64)
    mse = x.new_empty(levels, dtype=torch.float32)
    counts = x.new_empty((levels, k), dtype=torch.int64)
    sums = x.new_empty((levels if statistics else 0, k, d), dtype=torch.float32)
    remainder = like_x(x, torch.float32) if need_x else x.new_empty(0, dtype=torch.float32)
    code_remainders = x.new_empty((levels if need_codebooks else 0, k, d), dtype=torch.float32)
    codes = contiguous_codes(codebooks)
    unmasked = flat_mask(mask)
    reach = None if kept is None else flat_indices(kept)
    core.residual(
        rows_of(x, channel_dim),
        codes.data_ptr(),
        k,
        levels,
        books != levels,
        [prepared_block([part]) for part in prepared or ()],
        pointer(unmasked),
        pointer(reach),
        indices.data_ptr(),
        rows_of(quantized, channel_dim),
        rows_of(remainder, channel_dim) if need_x else None,
        mse.data_ptr(),
        counts.data_ptr(),
        sums.data_ptr() if statistics else 0,
        code_remainders.data_ptr() if need_codebooks else 0,
        threads(x.numel() * k * levels),
    )
    return quantized, indices, mse, counts, sums, remainder, code_remainders
