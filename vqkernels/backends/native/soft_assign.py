"""soft_assign: the log-normaliser and the mean logit of every row, and the mass of every code."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels._layout import row_shape
from vqkernels.backends.native._arguments import (
    contiguous_codes,
    flat_mask,
    pointer,
    rows_of,
    threads,
)
from vqkernels.backends.native._core import core


def soft_assign(
    x: Tensor,
    codebook: Tensor,
    mask: Tensor | None,
    temperature: float,
    channel_dim: int,
    usage: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    shape = row_shape(x, channel_dim)
    logsumexp = x.new_empty(shape, dtype=torch.float64)
    mean_logit = x.new_empty(shape, dtype=torch.float64)
    mass = x.new_empty(len(codebook) if usage else 0, dtype=torch.float32)
    codes = contiguous_codes(codebook)
    kept = flat_mask(mask)
    core.soft_assign(
        rows_of(x, channel_dim),
        codes.data_ptr(),
        len(codes),
        pointer(kept),
        temperature,
        logsumexp.data_ptr(),
        mean_logit.data_ptr(),
        mass.data_ptr() if usage else 0,
        threads(x.numel() * len(codes)),
    )
    return logsumexp, mean_logit, mass
