"""Sizes of the tiles (rows, channels) that a program works on: powers of two.

They follow from how x lies, not from how many rows it has, so that another number of rows compiles
nothing anew. A tile holds eight elements per thread: with float64 and 64-bit offsets more would
spill.
"""

from __future__ import annotations

import triton
from torch import Tensor

_ELEMENTS = 1024
_MOST_CHANNELS = 128
_MOST_CHANNELS_APART = 16


def tile(x: Tensor, channel_dim: int) -> tuple[int, int]:
    """For the rows of x in their order: long along what lies together, channels or rows."""
    most = _MOST_CHANNELS if x.stride(channel_dim) == 1 else _MOST_CHANNELS_APART
    return _rows_and_channels(x.shape[channel_dim], most)


def tile_of_length(dim: int) -> tuple[int, int]:
    """For rows of length ``dim`` that lie anywhere."""
    return _rows_and_channels(dim, _MOST_CHANNELS)


def _rows_and_channels(dim: int, most_channels: int) -> tuple[int, int]:
    channels = min(triton.next_power_of_2(dim), most_channels)
    return min(_ELEMENTS // channels, 64), channels
