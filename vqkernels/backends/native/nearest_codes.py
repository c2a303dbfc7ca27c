"""nearest_codes: the k nearest codes, on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels._layout import row_shape
from vqkernels.backends.native._arguments import METRIC, contiguous_codes, rows_of, threads
from vqkernels.backends.native._core import core


def nearest_codes(
    x: Tensor, codebook: Tensor, k: int, metric: str, channel_dim: int
) -> tuple[Tensor, Tensor]:
    shape = (*row_shape(x, channel_dim), k)
    indices = x.new_empty(shape, dtype=torch.int64)
    distances = x.new_empty(shape, dtype=torch.float32)
    codes = contiguous_codes(codebook)
    core.nearest_codes(
        rows_of(x, channel_dim),
        codes.data_ptr(),
        codes.shape[0],
        METRIC[metric],
        k,
        indices.data_ptr(),
        distances.data_ptr(),
        threads(x.numel() * codes.shape[0]),
    )
    return indices, distances
