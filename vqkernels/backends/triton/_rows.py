"""How a kernel finds the rows of a tensor of any layout."""

from __future__ import annotations

import triton
import triton.language as tl  # noqa: F401 (the interpreter looks for the name)
from torch import Tensor

from vqkernels._layout import row_dims

_MAX_ROW_DIMS = 4


@triton.jit
def row_offsets(row, size1, size2, size3, stride0, stride1, stride2, stride3):
    """Element offsets of rows in a tensor with up to four row dimensions, in int64."""
    i3 = row % size3
    row = row // size3
    i2 = row % size2
    row = row // size2
    return (row // size1) * stride0 + (row % size1) * stride1 + i2 * stride2 + i3 * stride3


def row_layout(x: Tensor, channel_dim: int) -> tuple[Tensor, tuple[int, ...]]:
    """x, and what a kernel needs to find its rows: three sizes, four strides, the channel stride.

    x itself, except with five or more row dimensions that no two of them merge: rare enough to pay
    a copy.
    """
    sizes, strides = row_dims(x, channel_dim)
    if len(sizes) > _MAX_ROW_DIMS:
        x = x.contiguous()
        sizes, strides = row_dims(x, channel_dim)
    # Inner ones: the outermost size, which the number of rows sets, is none of the arguments.
    padding = _MAX_ROW_DIMS - len(sizes)
    sizes, strides = sizes + [1] * padding, strides + [0] * padding
    return x, (*sizes[1:], *strides, x.stride(channel_dim))
