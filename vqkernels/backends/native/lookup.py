"""lookup: codes back to vectors."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels.backends.native._arguments import (
    contiguous_codes,
    flat_indices,
    refuse,
    rows_of,
    threads,
)
from vqkernels.backends.native._core import core


def lookup(indices: Tensor, codebook: Tensor, channel_dim: int) -> Tensor:
    k, d = codebook.shape
    shape = (*indices.shape[:channel_dim], d, *indices.shape[channel_dim:])
    out = codebook.new_empty(shape, dtype=torch.float32)
    flat = flat_indices(indices)
    codes = contiguous_codes(codebook)
    bad = core.lookup(
        flat.data_ptr(), codes.data_ptr(), k, rows_of(out, channel_dim), threads(out.numel())
    )
    refuse(bad, flat, k)
    return out.to(codebook.dtype)
