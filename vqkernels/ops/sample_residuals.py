"""sample_residuals: the rows of sample_rows, as every level of a residual quantizer met them."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels._layout import take_rows
from vqkernels._numerics import wide
from vqkernels.ops._library import define
from vqkernels.ops.dispatch import implementation
from vqkernels.ops.sample_rows import drawn_positions


def _impl(
    x: Tensor,
    codebooks: Tensor,
    indices: Tensor,
    mask: Tensor | None,
    clock: Tensor,
    count: int,
    seed: int,
    channel_dim: int,
) -> tuple[Tensor, Tensor]:
    """The rows that ``sample_rows`` picks, as every level met them: r_l, (L, count, D).

    ``indices``, (*positions, L), are those that ``residual`` returned for x and ``codebooks``.
    """
    if x.numel() == 0:
        shape = (indices.shape[-1], count, x.shape[channel_dim])
        rows = x.new_zeros(shape, dtype=wide(x.dtype, codebooks.dtype))
        return rows, torch.zeros_like(clock)
    draw = implementation("sample_residuals", in_torch, x, codebooks)
    return draw(x, codebooks, indices, mask, clock, count, seed, channel_dim)


def in_torch(
    x: Tensor,
    codebooks: Tensor,
    indices: Tensor,
    mask: Tensor | None,
    clock: Tensor,
    count: int,
    seed: int,
    channel_dim: int,
) -> tuple[Tensor, Tensor]:
    """The specification, on any device, for at least one position."""
    levels = indices.shape[-1]
    dtype = wide(x.dtype, codebooks.dtype)
    position, found = drawn_positions(x, mask, clock, count, seed, channel_dim)
    chosen = indices.reshape(-1, levels)[position].clamp(min=0)
    left = [take_rows(x, position, channel_dim).to(dtype)]
    for level in range(levels - 1):
        left.append(left[-1] - codebooks[level % len(codebooks)].to(dtype)[chosen[:, level]])
    return torch.stack(left), found


def _fake(
    x: Tensor,
    codebooks: Tensor,
    indices: Tensor,
    mask: Tensor | None,
    clock: Tensor,
    count: int,
    seed: int,
    channel_dim: int,
) -> tuple[Tensor, Tensor]:
    dtype = wide(x.dtype, codebooks.dtype)
    rows = x.new_empty(indices.shape[-1], count, x.shape[channel_dim], dtype=dtype)
    return rows, torch.empty_like(clock)


sample_residuals = define(
    "sample_residuals(Tensor x, Tensor codebooks, Tensor indices, Tensor? mask, Tensor clock, "
    "int count, int seed, int channel_dim) -> (Tensor rows, Tensor found)",
    _impl,
    _fake,
)
