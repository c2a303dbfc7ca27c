"""Finite scalar quantization on checked arguments, for modules. Part of the functional layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from vqkernels import _checks, ops
from vqkernels._levels import BOUNDS, MOST_CODES, MOST_COUNTED, MOST_LEVELS
from vqkernels.outputs import CodeUsage, VQOutput


def check_levels(levels: Any, symmetric: bool, bound: str) -> tuple[int, ...]:
    """``levels`` as a tuple."""
    _checks.boolean("preserve_symmetry", symmetric)
    _checks.one_of("bound", bound, BOUNDS)
    if not isinstance(levels, Sequence) or isinstance(levels, str):
        raise TypeError(f"levels must be a sequence of integers, got {levels!r}")
    if not levels:
        raise ValueError("levels must hold at least one number, got none")
    for number, count in enumerate(levels):
        _checks.integer_at_least(f"levels[{number}]", count, 2)
        if count > MOST_LEVELS:
            raise ValueError(f"levels[{number}] must be at most {MOST_LEVELS}, got {count}")
        if count == 2 and not symmetric:
            raise ValueError(
                f"levels[{number}] must be at least 3 without preserve_symmetry=True, got 2"
            )
    checked = tuple(int(count) for count in levels)  # numpy's integers would overflow
    if math.prod(checked) > MOST_CODES:
        raise ValueError(f"levels must have a product of at most 2^62, got {math.prod(checked)}")
    return checked


def quantize_scalars(
    x: Tensor,
    mask: Tensor | None,
    levels: tuple[int, ...],
    *,
    preserve_symmetry: bool,
    bound: str,
    channel_dim: int,
    backend: str | None,
    count: bool = True,
) -> VQOutput:
    """``usage.counts`` is (K,), or (0,) without ``count`` or where K is beyond 2^20."""
    num_codes = math.prod(levels)
    num_counted = num_codes if count and num_codes <= MOST_COUNTED else 0
    options = (levels, preserve_symmetry, bound, num_counted, channel_dim, backend)
    quantized, indices, mse, counts = ops.FiniteScalarQuantize.apply(x, mask, *options)
    return VQOutput(quantized, indices, mse.new_zeros(()), CodeUsage(counts, mse))


def codes_of(
    indices: Tensor, levels: tuple[int, ...], *, preserve_symmetry: bool, channel_dim: int
) -> Tensor:
    """The codes, float32, channels at ``channel_dim``; index -1 gives zeros."""
    _checks.integers("indices", indices)
    channel = _checks.channel_dim(channel_dim, indices.ndim + 1)
    return ops.fsq_lookup(indices, levels, preserve_symmetry, channel)
