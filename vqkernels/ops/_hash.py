"""A counter-based hash: random choices that read and advance no generator."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels._numerics import mix32


def hash32(counter: Tensor, clock: Tensor, seed: int) -> Tensor:
    """int64 in [0, 2^32): a fixed function of (seed, clock, counter)."""
    keyed = mix32(torch.full_like(clock, seed & 0xFFFFFFFF)) + clock
    return mix32(mix32(keyed) + counter)
