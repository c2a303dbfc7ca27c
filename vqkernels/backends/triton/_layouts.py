"""How a kernel finds the rows of a tensor of any layout, and the same row in several of them.

The positions of all of them are cut into at most four row dimensions at once, so a kernel divides
a row number once and multiplies by the strides of each tensor.
"""

from __future__ import annotations

import triton
import triton.language as tl  # noqa: F401 (the interpreter looks for the name)
from torch import Tensor

from vqkernels._layout import row_dims

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


@triton.jit
def row_offsets(row, size1, size2, size3, stride0, stride1, stride2, stride3):
    """Element offsets of rows (int64) where only one tensor is read."""
    i0, i1, i2, i3 = split_row(row, size1, size2, size3)
    return row_start(i0, i1, i2, i3, stride0, stride1, stride2, stride3)


def joint_layout(channel_dim: int, *tensors: Tensor | None) -> list[int] | None:
    """What a kernel needs: three sizes, then per tensor four strides and the channel stride.

    All tensors have one shape; None stands for one that is not there. Returns None where more than
    four row dimensions remain that do not merge in all of them.
    """
    there = [tensor for tensor in tensors if tensor is not None]
    sizes, strides = row_dims(channel_dim, *there)
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


def row_layout(x: Tensor, channel_dim: int) -> tuple[Tensor, list[int]]:
    """x and its ``joint_layout``.

    x itself, except with five or more row dimensions that no two of them merge: rare enough to pay
    a copy.
    """
    layout = joint_layout(channel_dim, x)
    if layout is None:
        x = x.contiguous()
        layout = joint_layout(channel_dim, x)
    assert layout is not None
    return x, layout
