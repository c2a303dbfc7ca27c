"""Finite scalar quantization as numbers: which x becomes which level, and which index that is.

Channel i of a vector becomes one of L_i levels, numbered by a digit d from 0; the index of the
vector is the mixed-radix number of its digits, the first channel counting least. What every layer
needs to know about a channel, with ``e = 0`` where codes are symmetric and 1e-3 otherwise::

    bounded(x) = gain * u(x + shift) + bias      u = tanh, or the clamp to [-1, 1]
    code(d)    = (stride * d - half) / half
    d          = the number of thresholds t_j <= x,  j = 1, ..., L - 1
    t_j        = u^-1((2 j - L) / ((L - 1) (1 + e))) - shift

t_j is where bounded(x) lies halfway between the codes j - 1 and j. Counting thresholds instead of
rounding bounded(x) makes the digit independent of how a device computes tanh, and keeps it in
range for any L, where rounding leaves it from L = 1000 on.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

BOUNDS = ("tanh", "clamp")
MOST_LEVELS = 1 << 16  # of a channel: float32 then still tells the levels apart
MOST_CODES = 1 << 62  # an index fits int64
MOST_COUNTED = 1 << 20  # codes: beyond them counts would be larger than most batches
_SLACK = 1e-3  # e above: how far the bound reaches past the outermost codes


class LevelTables(NamedTuple):
    """Constants of D channels on a device.

    ``thresholds`` holds the L + 1 limits of every channel's levels one after the other, from
    ``start[i]`` on: digit d of channel i has ``limits[d] <= x < limits[d + 1]``, and the outermost
    are infinite. ``rounded`` are the same in float32, rounded up: for x in float32, float16 or
    bfloat16 every comparison has the same result.
    """

    levels: Tensor  # (D,) int64
    basis: Tensor  # (D,) int64: what a digit counts
    start: Tensor  # (D,) int64
    thresholds: Tensor  # float64
    rounded: Tensor  # float32
    shift: Tensor  # (D,) float64
    gain: Tensor  # (D,) float64
    bias: Tensor  # (D,) float64
    half: Tensor  # (D,) float64
    stride: int


def basis_of(levels: Sequence[int]) -> list[int]:
    """What the digit of every channel counts in the index."""
    return [math.prod(levels[:i]) for i in range(len(levels))]


@functools.lru_cache(maxsize=256)
def level_tables(
    levels: tuple[int, ...], symmetric: bool, bound: str, device: torch.device
) -> LevelTables:
    """The constants, made once: what they are made of never changes."""
    channels = [_channel(count, symmetric, bound) for count in levels]
    shift, gain, bias = torch.tensor(channels, dtype=torch.float64).T.contiguous()
    found: list[float] = []
    for count, offset in zip(levels, shift.tolist(), strict=True):
        found += _limits(count, offset, symmetric, bound)
    limits = torch.tensor(found, dtype=torch.float64)
    rounded = limits.float()
    up = torch.nextafter(rounded, torch.full_like(rounded, math.inf))
    rounded = torch.where(rounded.double() < limits, up, rounded)
    counts = torch.tensor(levels, dtype=torch.int64)
    half = (counts - 1 if symmetric else counts // 2).double()
    basis = torch.tensor(basis_of(levels), dtype=torch.int64)
    return LevelTables(
        levels=counts.to(device),
        basis=basis.to(device),
        start=((counts + 1).cumsum(0) - (counts + 1)).to(device),
        thresholds=limits.to(device),
        rounded=rounded.to(device),
        shift=shift.to(device),
        gain=gain.to(device),
        bias=bias.to(device),
        half=half.to(device),
        stride=1 + symmetric,
    )


def _channel(count: int, symmetric: bool, bound: str) -> tuple[float, float, float]:
    """shift, gain and bias of a channel with ``count`` levels."""
    if symmetric:
        return 0.0, 1.0, 0.0
    reach = (count - 1) * (1.0 + _SLACK) / 2.0
    offset = 0.0 if count % 2 else 0.5
    return _inverse(offset / reach, bound), reach / (count // 2), -offset / (count // 2)


def _limits(count: int, shift: float, symmetric: bool, bound: str) -> Iterator[float]:
    yield -math.inf
    for j in range(1, count):
        u = (2 * j - count) / ((count - 1) * (1.0 if symmetric else 1.0 + _SLACK))
        yield _inverse(u, bound) - shift
    yield math.inf


def _inverse(u: float, bound: str) -> float:
    return math.atanh(u) if bound == "tanh" else u
