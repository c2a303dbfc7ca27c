"""Sizes of the tiles (rows, channels) that a program works on."""

from __future__ import annotations

import triton

_MOST_CHANNELS = 128
_ELEMENTS = 1024  # eight per thread: with float64 and 64-bit offsets more would spill


def tile(dim: int, most_rows: int = 64) -> tuple[int, int]:
    """Rows and channels of a tile for vectors of length ``dim``: powers of two.

    They follow from the length alone, so that another number of rows compiles nothing anew.
    """
    channels = min(triton.next_power_of_2(dim), _MOST_CHANNELS)
    return min(max(_ELEMENTS // channels, 8), most_rows), channels
