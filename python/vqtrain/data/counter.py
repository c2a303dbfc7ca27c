"""Uniform numbers that are a function of their place, so that any item can be made at any time.

SplitMix64's output function (Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195) is applied
to each part of a counter in turn: every number of a training set of any length, for any epoch, is
made without those before it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def uniforms(key: Sequence[int], rows: Tensor, draws: Tensor, count: int) -> Tensor:
    """Numbers in [0, 1) that belong to a key, a row, a draw and a factor.

    Args:
        key: what they are for, such as a split and a seed; at least 0 each.
        rows: `(n,)` int64.
        draws: `(n,)` int64.
        count: factors.

    Returns:
        `(n, count)` float64, with 53 random bits each.
    """
    parts = [np.array([[part]]) for part in key]
    parts += [rows.numpy()[:, None], draws.numpy()[:, None], np.arange(count)[None]]
    state = np.zeros((1, 1), dtype=np.uint64)
    for part in parts:
        state = _mix((state ^ part.astype(np.uint64)) + _GOLDEN)
    return torch.from_numpy((state >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * _FIRST
    x = (x ^ (x >> np.uint64(27))) * _SECOND
    return x ^ (x >> np.uint64(31))
