"""Layers by number of spatial dimensions: 1 for sound, 2 for pictures, 3 for video."""

import torch.nn.functional as F
from torch import Tensor, nn

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
CONV_TRANSPOSE = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


def over_space(per_item: Tensor, ndim: int) -> Tensor:
    """`(B, C)` to `(B, C, 1, ...)`, which broadcasts over `ndim` spatial dimensions."""
    return per_item[(...,) + (None,) * ndim]


def resize(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """`(B, C, *grid)` to `(B, C, *size)` by repeating the nearest value."""
    return x if x.shape[2:] == size else F.interpolate(x, size=size, mode="nearest-exact")


def shrunk(size: tuple[int, ...], halvings: int) -> tuple[int, ...]:
    """The grid that is left of `size` when every axis is halved that often.

    Raises:
        ValueError: if a length is not a multiple of `2 ** halvings`, or nothing is left.
    """
    factor = 2**halvings
    if any(length < factor or length % factor for length in size):
        raise ValueError(f"size must have lengths divisible by {factor}, got {size}")
    return tuple(length // factor for length in size)
