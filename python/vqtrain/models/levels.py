"""Integer levels as numbers that a network can read."""

import torch
from torch import Tensor


def scaled(x: Tensor, levels: int, dtype: torch.dtype) -> Tensor:
    """`0 .. levels - 1` to [-1, 1]."""
    return x.to(dtype) * (2 / (levels - 1)) - 1
