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
