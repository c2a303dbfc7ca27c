"""Where the row vectors of a tensor lie.

Every op sees x as N rows of D channels. Position, not memory, defines the rows: row n is the n-th
position of x without its channel dimension, in row-major order.
"""

from __future__ import annotations

from collections.abc import Sequence

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


def like_x(x: Tensor, dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor with x's shape and memory format: what ops return as vectors."""
    return torch.empty_like(x, dtype=dtype)


def row_dims(x: Tensor, channel_dim: int) -> tuple[list[int], list[int]]:
    """Sizes and strides (elements) of the row dimensions, neighbours merged where possible."""
    sizes = list(row_shape(x, channel_dim))
    strides = [*x.stride()[:channel_dim], *x.stride()[channel_dim + 1 :]]
    return _coalesce(sizes, strides)


def _coalesce(sizes: Sequence[int], strides: Sequence[int]) -> tuple[list[int], list[int]]:
    merged_sizes: list[int] = []
    merged_strides: list[int] = []
    for size, stride in zip(sizes, strides, strict=True):
        if size == 1:
            continue
        if merged_sizes and merged_strides[-1] == stride * size:
            merged_sizes[-1] *= size
            merged_strides[-1] = stride
        else:
            merged_sizes.append(size)
            merged_strides.append(stride)
    return merged_sizes or [1], merged_strides or [0]
