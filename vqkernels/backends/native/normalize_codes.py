"""normalize_codes: codes of length 1 for the cosine metric."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels.backends.native._arguments import rows_of, threads
from vqkernels.backends.native._core import core


def normalize_codes(codebook: Tensor) -> tuple[Tensor, Tensor]:
    unit = codebook.new_empty(codebook.shape, dtype=torch.float32)
    norms = codebook.new_empty((codebook.shape[0], 1), dtype=torch.float64)
    core.normalize_codes(
        rows_of(codebook, 1), unit.data_ptr(), norms.data_ptr(), threads(codebook.numel())
    )
    return unit, norms
