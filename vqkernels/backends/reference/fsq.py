"""fsq: every channel to its level; the index of the vector, and back."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vqkernels._layout import as_rows, like_x, row_shape, write_rows
from vqkernels._levels import LevelTables, level_tables
from vqkernels._numerics import fixed_sum, upcast, wide


def fsq(
    x: Tensor,
    mask: Tensor | None,
    levels: tuple[int, ...],
    symmetric: bool,
    bound: str,
    num_counted: int,
    channel_dim: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Finite scalar quantization (Mentzer et al. 2023, arXiv 2309.15505), by ``_levels.py``.

    Returns (quantized, indices, mse, counts): ``quantized`` in x's dtype, x itself where masked
    and NaN for rows that are not finite, whose index is 0; masked indices are -1. The error is
    that of the code against the bounded x. ``counts`` has ``num_counted`` entries, K or 0.
    """
    tables = level_tables(levels, symmetric, bound, x.device)
    rows = upcast(as_rows(x, channel_dim))
    valid = torch.ones_like(rows[:, 0], dtype=torch.bool) if mask is None else mask.reshape(-1)
    finite = rows.isfinite().all(dim=1)
    digits = torch.stack(
        [
            torch.bucketize(rows[:, i].contiguous(), limits[1:-1], right=True)
            for i, limits in enumerate(tables.thresholds.split([count + 1 for count in levels]))
        ],
        dim=1,
    )
    indices = (digits * tables.basis).sum(dim=1)
    indices = torch.where(valid, torch.where(finite, indices, 0), -1)

    codes = torch.where(finite[:, None], _codes(digits, tables), torch.nan)
    bounded = tables.gain * _bound(rows + tables.shift, bound) + tables.bias
    error = torch.where(valid[:, None], bounded - codes, 0.0)
    count = (valid.sum() * rows.shape[1]).clamp(min=1)
    mse = (fixed_sum(error.square().sum(dim=1)) / count).to(wide(x.dtype))
    quantized = torch.where(valid[:, None], codes.to(wide(x.dtype)).to(x.dtype), rows.to(x.dtype))
    counts = torch.zeros(num_counted, dtype=torch.int64, device=x.device)
    if num_counted:
        counts.scatter_add_(0, indices.clamp(min=0), (valid & finite).long())
    return (
        write_rows(quantized, like_x(x, x.dtype), channel_dim),
        indices.reshape(row_shape(x, channel_dim)),
        mse,
        counts,
    )


def fsq_backward(
    grad_quantized: Tensor,
    x: Tensor,
    mask: Tensor | None,
    levels: tuple[int, ...],
    symmetric: bool,
    bound: str,
    channel_dim: int,
) -> Tensor:
    """The gradient in x of bounded(x): the rounding passes gradients on (straight-through).

    The slope is ``gain (1 - tanh^2)``, or ``gain`` where the clamp does not act, 0 where x is not
    finite, and 1 in masked rows.
    """
    tables = level_tables(levels, symmetric, bound, x.device)
    upstream = as_rows(grad_quantized, channel_dim).double()
    y = as_rows(x, channel_dim).double() + tables.shift
    slope = (y.abs() <= 1.0).double() if bound == "clamp" else y.cosh().square().reciprocal()
    slope = slope.nan_to_num(0.0)
    grad = tables.gain * slope * upstream
    if mask is not None:
        grad = torch.where(mask.reshape(-1, 1), grad, upstream)
    return write_rows(grad.to(x.dtype), like_x(x, x.dtype), channel_dim)


def fsq_lookup(
    indices: Tensor, levels: tuple[int, ...], symmetric: bool, channel_dim: int
) -> Tensor:
    """The codes, float32; index -1 gives zeros, a bad one NaN."""
    tables = level_tables(levels, symmetric, "tanh", indices.device)
    flat = indices.reshape(-1, 1).long()
    digits = flat.div(tables.basis, rounding_mode="floor") % tables.levels
    codes = torch.where(flat == -1, 0.0, _codes(digits, tables))
    bad = (flat < -1) | (flat >= math.prod(levels))
    codes = torch.where(bad, torch.nan, codes).float()
    return codes.reshape(*indices.shape, len(levels)).movedim(-1, channel_dim).contiguous()


def _codes(digits: Tensor, tables: LevelTables) -> Tensor:
    """float64: rounded to float32, it is the correctly rounded quotient."""
    return (tables.stride * digits - tables.half) / tables.half


def _bound(values: Tensor, bound: str) -> Tensor:
    return values.clamp(-1.0, 1.0) if bound == "clamp" else values.tanh()
