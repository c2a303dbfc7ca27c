"""bit_codes: indices back to vectors of +-1 bits."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels.backends import reference
from vqkernels.ops._library import define
from vqkernels.ops.lookup import refuse_out_of_range


def _impl(indices: Tensor, bits: int, scale: float, channel_dim: int) -> Tensor:
    if indices.device.type == "cpu":
        refuse_out_of_range(indices, 2**bits)
    return reference.bit_codes(indices, bits, scale, channel_dim)


def _fake(indices: Tensor, bits: int, scale: float, channel_dim: int) -> Tensor:
    shape = (*indices.shape[:channel_dim], bits, *indices.shape[channel_dim:])
    return indices.new_empty(shape, dtype=torch.float32)


bit_codes = define(
    "bit_codes(Tensor indices, int bits, float scale, int channel_dim) -> Tensor", _impl, _fake
)
