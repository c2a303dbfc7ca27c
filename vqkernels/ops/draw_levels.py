"""draw_levels: how many levels of a residual quantizer every example of a batch keeps."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels.ops._hash import hash32
from vqkernels.ops._library import define

_HASHES = 1 << 32


def _impl(
    draws: Tensor,
    examples: int,
    levels: int,
    probability: float,
    keep: int,
    multiple_of: int,
    seed: int,
) -> Tensor:
    """int64 (examples,), a function of (seed, draws, example) alone; ``draws`` is what is counted.

    With ``probability`` an example keeps a number from ``keep`` to ``levels``, all of them equally
    likely, rounded up to a multiple; else ``levels``.
    """
    drawn = hash32(torch.arange(examples, device=draws.device), draws, seed)
    dropping = max(round(probability * _HASHES), 1)  # hashes below this one drop levels
    kept = keep + drawn * (levels - keep + 1) // dropping
    kept = (kept + multiple_of - 1) // multiple_of * multiple_of
    return torch.where(drawn < dropping, kept, levels).clamp(max=levels)


def _fake(
    draws: Tensor,
    examples: int,
    levels: int,
    probability: float,
    keep: int,
    multiple_of: int,
    seed: int,
) -> Tensor:
    return draws.new_empty(examples)


draw_levels = define(
    "draw_levels(Tensor draws, SymInt examples, int levels, float probability, int keep, "
    "int multiple_of, int seed) -> Tensor",
    _impl,
    _fake,
)
