"""fsq: every channel to its level in one pass over x, and the gradient in another."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor

from vqkernels._layout import like_x, row_shape
from vqkernels._levels import BOUNDS, level_tables
from vqkernels.backends.native._arguments import (
    flat_indices,
    flat_mask,
    pointer,
    refuse,
    rows_of,
    threads,
)
from vqkernels.backends.native._core import core

_WORK = 32  # multiply-adds for a channel, about


@functools.lru_cache(maxsize=256)
def _scalars(levels: tuple[int, ...], symmetric: bool, bound: str) -> tuple[Any, list[Tensor]]:
    """The constants as csrc takes them, and the tensors that hold them."""
    tables = level_tables(levels, symmetric, bound, torch.device("cpu"))
    integers = [tables.levels.int(), tables.basis, tables.start]
    floats = [tables.shift, tables.gain, tables.bias, tables.half]
    tensors = [*integers, tables.rounded, *(values.float() for values in floats)]
    pointers = [tensor.data_ptr() for tensor in tensors]
    return core.ScalarLevels(*pointers, tables.stride, BOUNDS.index(bound)), tensors


def fsq(
    x: Tensor,
    mask: Tensor | None,
    levels: tuple[int, ...],
    symmetric: bool,
    bound: str,
    num_counted: int,
    channel_dim: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    quantized = like_x(x, x.dtype)
    indices = x.new_empty(row_shape(x, channel_dim), dtype=torch.int64)
    mse = x.new_empty((), dtype=torch.float32)
    counts = x.new_empty(num_counted, dtype=torch.int64)
    kept = flat_mask(mask)
    core.fsq(
        rows_of(x, channel_dim),
        _scalars(levels, symmetric, bound)[0],
        pointer(kept),
        rows_of(quantized, channel_dim),
        indices.data_ptr(),
        mse.data_ptr(),
        num_counted,
        counts.data_ptr() if num_counted else 0,
        threads(x.numel() * _WORK),
    )
    return quantized, indices, mse, counts


def fsq_backward(
    grad_quantized: Tensor,
    x: Tensor,
    mask: Tensor | None,
    levels: tuple[int, ...],
    symmetric: bool,
    bound: str,
    channel_dim: int,
) -> Tensor:
    grad_x = like_x(x, x.dtype)
    kept = flat_mask(mask)
    core.fsq_backward(
        rows_of(grad_quantized, channel_dim),
        rows_of(x, channel_dim),
        _scalars(levels, symmetric, bound)[0],
        pointer(kept),
        rows_of(grad_x, channel_dim),
        threads(x.numel() * _WORK),
    )
    return grad_x


def fsq_lookup(
    indices: Tensor, levels: tuple[int, ...], symmetric: bool, channel_dim: int
) -> Tensor:
    shape = (*indices.shape[:channel_dim], len(levels), *indices.shape[channel_dim:])
    out = indices.new_empty(shape, dtype=torch.float32)
    flat, num_codes = flat_indices(indices), math.prod(levels)
    bad = core.fsq_lookup(
        flat.data_ptr(),
        _scalars(levels, symmetric, BOUNDS[0])[0],
        num_codes,
        rows_of(out, channel_dim),
        threads(out.numel() * _WORK),
    )
    refuse(bad, flat, num_codes)
    return out
