"""Rows and codes that are drawn alike, as many of both as a benchmark asks for.

Without clustering, which would take hours for 262144 codes: rows and codes are different windows
of the photographs (4x4 pixels in colour, at every pixel and mirrored), or in ``cases.DATA``
different draws of a Gaussian. More codes begin with those of fewer, and so do rows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import device_data
import numpy as np
from torch import Tensor

PHOTO, WHITE = "4x4 photo", "whitened 4x4 photo"
_ROWS, _CODES = 1 << 16, 1 << 18  # the most that can be asked for
_WINDOWS = 350_000  # of which some are equal: dark corners


def photo(n: int, k: int, d: int) -> tuple[Tensor, Tensor]:
    """x (N, D) and codes (K, D): the D leading principal components, the largest one last."""
    assert n <= _ROWS, n
    drawn = _different(d)
    assert _ROWS + k <= len(drawn), k
    return drawn[:n].contiguous(), drawn[_ROWS : _ROWS + k].contiguous()


def white(n: int, k: int, d: int) -> tuple[Tensor, Tensor]:
    """The same with variance one in every component, so that no few of them decide."""
    x, codes = photo(n, k, d)
    spread = _different(d).std(dim=0)
    return x / spread, codes / spread


@functools.cache
def _different(d: int) -> Tensor:
    drawn = device_data.components(device_data.windows(_WINDOWS, 4, True), d)
    first = np.unique(drawn.numpy(), axis=0, return_index=True)[1]
    return drawn[np.sort(first)]


DATA: dict[str, Callable[[int, int, int], tuple[Tensor, Tensor]]] = {PHOTO: photo, WHITE: white}
