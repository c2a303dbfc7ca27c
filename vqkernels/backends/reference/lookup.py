"""lookup: codes back to vectors."""

from __future__ import annotations

import torch
from torch import Tensor


def lookup(indices: Tensor, codebook: Tensor, channel_dim: int) -> Tensor:
    """Rows of the codebook along ``channel_dim``; index -1 gives zeros, a bad one NaN."""
    k, d = codebook.shape
    flat = indices.reshape(-1).long()
    rows = codebook[flat.clamp(0, k - 1)]
    rows = torch.where((flat == -1)[:, None], 0, rows)
    rows = torch.where(((flat < -1) | (flat >= k))[:, None], torch.nan, rows)
    return rows.reshape(*indices.shape, d).movedim(-1, channel_dim).contiguous()
