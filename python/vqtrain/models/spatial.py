"""Layers by number of spatial dimensions: 1 for sound, 2 for pictures, 3 for video."""

import torch.nn.functional as F
from torch import Tensor, nn

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
CONV_TRANSPOSE = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
DIMENSIONS = tuple(CONV)


def check_ndim(ndim: int) -> None:
    """Refuses what there is no convolution for."""
    if ndim not in DIMENSIONS:
        raise ValueError(f"ndim must be 1, 2 or 3, got {ndim}")


def over_space(per_item: Tensor, ndim: int) -> Tensor:
    """`(B, C)` to `(B, C, 1, ...)`, which broadcasts over `ndim` spatial dimensions."""
    return per_item[(...,) + (None,) * ndim]


def resize(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """`(B, C, *grid)` to `(B, C, *size)` by repeating the nearest value."""
    return x if x.shape[2:] == size else F.interpolate(x, size=size, mode="nearest-exact")
