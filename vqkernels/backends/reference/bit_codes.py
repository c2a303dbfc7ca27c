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
    has = (values >> places & 1) != 0
    # Dense and float32, whatever the strides of the indices and torch's default dtype are.
    codes = torch.full(has.shape, -scale, dtype=torch.float32, device=indices.device)
    codes.masked_fill_(has, scale).masked_fill_(values >> bits != 0, torch.nan)
    return codes.masked_fill_(values == -1, 0.0)
