"""bit_codes: the vectors of +-1 bits that indices stand for."""

from __future__ import annotations

import torch
from torch import Tensor


def bit_codes(indices: Tensor, bits: int, scale: float, channel_dim: int) -> Tensor:
    """``scale`` where a bit of the index is set and ``-scale`` where not, float32.

    The first channel is the most significant bit. Index -1 gives zeros, any other one outside of
    [0, 2^bits) NaN.
    """
    shape = [1] * (indices.ndim + 1)
    shape[channel_dim] = bits
    places = torch.arange(bits - 1, -1, -1, device=indices.device).reshape(shape)
    values = indices.long().unsqueeze(channel_dim)
    codes = torch.where((values >> places & 1) != 0, scale, -scale)
    codes = torch.where(values >> bits == 0, codes, torch.nan)
    return torch.where(values == -1, 0.0, codes)
