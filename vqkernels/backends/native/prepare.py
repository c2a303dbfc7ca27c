"""prepare: packs a codebook for the search on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels.backends.native._arguments import METRIC, contiguous_codes, threads
from vqkernels.backends.native._core import core


def prepared_bytes(num_codes: int, dim: int) -> int:
    return int(core.prepared_bytes(num_codes, dim))


def prepare(codebook: Tensor, metric: str) -> Tensor:
    """The codebook packed for the search at the level in use, with a copy of itself."""
    codes = contiguous_codes(codebook)
    k, d = codes.shape
    # torch aligns its CPU memory to 64 bytes, which the panels need.
    packed = codes.new_empty(prepared_bytes(k, d), dtype=torch.uint8)
    core.prepare(
        codes.data_ptr(), k, d, METRIC[metric], packed.data_ptr(), threads(64 * codes.numel())
    )
    return packed
