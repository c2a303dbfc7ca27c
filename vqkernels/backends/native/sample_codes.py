"""sample_codes: a code per row, drawn with its probability."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels._layout import row_shape
from vqkernels.backends.native._arguments import contiguous_codes, rows_of, threads
from vqkernels.backends.native._core import core


def sample_codes(
    x: Tensor,
    codebook: Tensor,
    logsumexp: Tensor,
    uniform: Tensor,
    temperature: float,
    channel_dim: int,
) -> Tensor:
    indices = x.new_empty(row_shape(x, channel_dim), dtype=torch.int64)
    codes = contiguous_codes(codebook)
    normaliser = logsumexp.contiguous()
    core.sample_codes(
        rows_of(x, channel_dim),
        codes.data_ptr(),
        len(codes),
        normaliser.data_ptr(),
        uniform.data_ptr(),
        temperature,
        indices.data_ptr(),
        threads(x.numel() * len(codes)),
    )
    return indices
