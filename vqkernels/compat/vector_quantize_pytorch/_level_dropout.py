"""How many levels a training forward of a residual quantizer keeps."""

from __future__ import annotations

import random

import torch

from vqkernels import distributed, ops


class SeedStream:
    """Seeds of quantizer dropout, one per forward and the same on all ranks.

    torch's generator gives the first one, which the ranks agree on by one collective; the others
    follow from it, so that no later forward waits for a device or for another rank.
    """

    def __init__(self) -> None:
        self._random: random.Random | None = None

    def next(self, device: torch.device) -> int:
        if self._random is None:
            seed = torch.randint(10_000, (), device=device)
            group = distributed.group_of(None)
            if group is not None:
                ops.all_reduce_(seed, group.name)
            self._random = random.Random(int(seed))
        return self._random.randrange(10_000)


def kept_levels(seed: int, levels: int, cutoff: int, multiple_of: int) -> int:
    """At least cutoff + 1, all numbers equally likely before they are rounded up."""
    last = random.Random(seed).randrange(cutoff, levels)
    return min(-(-(last + 1) // multiple_of) * multiple_of, levels)
