"""A counter-based hash: random choices that read and advance no generator."""

from __future__ import annotations

import torch
from torch import Tensor

_LOW_32 = 0xFFFFFFFF


def hash32(counter: Tensor, clock: Tensor, seed: int) -> Tensor:
    """int64 in [0, 2^32): a fixed function of (seed, clock, counter)."""
    keyed = _mix(torch.full_like(clock, seed & _LOW_32)) + clock
    return _mix(_mix(keyed) + counter)


def _mix(value: Tensor) -> Tensor:
    """The integer finalizer "lowbias32" (Wellons, hash-prospector); int64 products wrap."""
    value = value & _LOW_32
    value = ((value ^ (value >> 16)) * 0x7FEB352D) & _LOW_32
    value = ((value ^ (value >> 15)) * 0x846CA68B) & _LOW_32
    return value ^ (value >> 16)
