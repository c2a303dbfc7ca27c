"""What a training forward learns about a codebook, in the form in which ranks add it up."""

from __future__ import annotations

from typing import NamedTuple

import torch.distributed as dist
from torch import Tensor


class Statistics(NamedTuple):
    """What one training forward stores for one codebook.

    Attributes:
        counts: int64 (K,), valid rows that chose each code.
        sums: float32 (K, D), their sums; None where no moving average is kept.
        rows: float32 (R, D), candidates for revival; None without revival.
        found: int64 0-d, how many of ``rows``, from the front, are usable; None without revival.
    """

    counts: Tensor
    sums: Tensor | None
    rows: Tensor | None
    found: Tensor | None


def own_rank() -> int:
    """The number of this process among all; 0 where it is alone."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def seed_of_rank(seed: int) -> int:
    """The seed of what every process draws for its own batch."""
    odd = 0x9E3779B9  # apart in all of the 32 bits that the hash takes of a seed
    return seed + own_rank() * odd
