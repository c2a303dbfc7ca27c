"""Where the row vectors of a tensor lie.

Every op sees x as N rows of D channels. Position, not memory, defines the rows: row n is the n-th
position of x without its channel dimension, in row-major order.
"""

from __future__ import annotations

import torch
from torch import Tensor


def row_shape(x: Tensor, channel_dim: int) -> tuple[int, ...]:
    """Shape of the positions: x.shape without the channel dimension."""
    return (*x.shape[:channel_dim], *x.shape[channel_dim + 1 :])


def as_rows(x: Tensor, channel_dim: int) -> Tensor:
    """x as a (N, D) matrix; copies where the strides demand it."""
    return x.movedim(channel_dim, -1).reshape(-1, x.shape[channel_dim])


def write_rows(rows: Tensor, out: Tensor, channel_dim: int) -> Tensor:
    """Stores the (N, D) matrix ``rows`` into ``out``, shaped like x, and returns ``out``."""
    view = out.movedim(channel_dim, -1)
    view.copy_(rows.reshape(view.shape))
    return out


def take_rows(x: Tensor, row_numbers: Tensor, channel_dim: int) -> Tensor:
    """The given rows of x as a matrix, read through x's strides."""
    view = x.movedim(channel_dim, -1)
    if view.ndim == 2:
        return view[row_numbers]
    return view[torch.unravel_index(row_numbers, view.shape[:-1])]


def flagged_first(flags: Tensor) -> tuple[Tensor, Tensor]:
    """Places along the last dimension: the flagged ones in order, then the same ones again.

    And how many there are. No shape depends on the flags.
    """
    order = (~flags).to(torch.int8).argsort(dim=-1, stable=True)
    found = flags.sum(dim=-1)
    slot = torch.arange(flags.shape[-1], device=flags.device)
    return order.gather(-1, slot % found[..., None].clamp(min=1)), found


def like_x(x: Tensor, dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor with x's shape and memory format: what ops return as vectors."""
    return torch.empty_like(x, dtype=dtype)


def row_dims(channel_dim: int, *tensors: Tensor) -> tuple[list[int], list[tuple[int, ...]]]:
    """Sizes of the row dimensions, and in each of them the strides (elements) of every tensor.

    All tensors have one shape; neighbours are merged where they merge in all of them.
    """
    sizes: list[int] = []
    strides: list[tuple[int, ...]] = []
    columns = zip(*(_row_strides(tensor, channel_dim) for tensor in tensors), strict=True)
    for size, here in zip(row_shape(tensors[0], channel_dim), columns, strict=True):
        if size == 1:
            continue
        if sizes and strides[-1] == tuple(stride * size for stride in here):
            sizes[-1] *= size
            strides[-1] = here
        else:
            sizes.append(size)
            strides.append(here)
    return sizes or [1], strides or [(0,) * len(tensors)]


def _row_strides(x: Tensor, channel_dim: int) -> tuple[int, ...]:
    return (*x.stride()[:channel_dim], *x.stride()[channel_dim + 1 :])
