"""How one kernel finds the same row in several tensors that lie differently.

The positions of all of them are cut into at most four row dimensions at once, so a kernel divides
a row number once and multiplies by the strides of each tensor.
"""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl  # noqa: F401 (the interpreter looks for the name)
from torch import Tensor

from vqkernels._layout import row_shape

_MAX_ROW_DIMS = 4


@triton.jit
def split_row(row, size1, size2, size3):
    """Row numbers (int64) as indices into the four row dimensions."""
    i3 = row % size3
    row = row // size3
    i2 = row % size2
    row = row // size2
    return row // size1, row % size1, i2, i3


@triton.jit
def row_start(i0, i1, i2, i3, stride0, stride1, stride2, stride3):
    """Element offsets of the rows with these indices."""
    return i0 * stride0 + i1 * stride1 + i2 * stride2 + i3 * stride3


def joint_layout(channel_dim: int, *tensors: Tensor | None) -> list[int] | None:
    """What a kernel needs: three sizes, then per tensor four strides and the channel stride.

    All tensors have one shape; None stands for one that is not there. Returns None where more than
    four row dimensions remain that do not merge in all of them.
    """
    there = [tensor for tensor in tensors if tensor is not None]
    sizes, strides = _merged(channel_dim, there)
    if len(sizes) > _MAX_ROW_DIMS:
        return None
    # Inner ones: the outermost size, which the number of rows sets, is none of the arguments.
    padding = _MAX_ROW_DIMS - len(sizes)
    layout = (sizes + [1] * padding)[1:]
    each = iter(zip(*strides, strict=True))
    for tensor in tensors:
        if tensor is None:
            layout += [0] * (_MAX_ROW_DIMS + 1)
        else:
            layout += [*next(each), *[0] * padding, tensor.stride(channel_dim)]
    return layout


def _merged(
    channel_dim: int, tensors: Sequence[Tensor]
) -> tuple[list[int], list[tuple[int, ...]]]:
    """Sizes of the row dimensions and the strides of every tensor in each, neighbours merged."""
    sizes: list[int] = []
    strides: list[tuple[int, ...]] = []
    columns = zip(*(row_strides(tensor, channel_dim) for tensor in tensors), strict=True)
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


def row_strides(x: Tensor, channel_dim: int) -> tuple[int, ...]:
    return (*x.stride()[:channel_dim], *x.stride()[channel_dim + 1 :])
