"""sample_residuals: the rows of sample_rows, as every level of a residual quantizer met them."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels._layout import flagged_first, take_rows
from vqkernels._numerics import wide
from vqkernels.ops._library import define
from vqkernels.ops.dispatch import implementation
from vqkernels.ops.sample_rows import drawn_positions


def _impl(
    x: Tensor,
    codebooks: Tensor,
    indices: Tensor,
    mask: Tensor | None,
    kept: Tensor | None,
    clock: Tensor,
    count: int,
    seed: int,
    channel_dim: int,
) -> tuple[Tensor, Tensor]:
    """The rows that ``sample_rows`` picks, as every level met them: r_l, (L, count, D).

    ``indices``, (*positions, L), are those that ``residual`` returned for x and ``codebooks``. Of
    the usable rows a level has those that take part in it, in their order and then again;
    ``found`` (L,) says how many there are.
    """
    levels = indices.shape[-1]
    if x.numel() == 0:
        shape = (levels, count, x.shape[channel_dim])
        rows = x.new_zeros(shape, dtype=wide(x.dtype, codebooks.dtype))
        return rows, clock.new_zeros(levels)
    draw = implementation("sample_residuals", in_torch, x, codebooks)
    rows, found, position = draw(x, codebooks, indices, mask, clock, count, seed, channel_dim)
    if kept is None:
        return rows, found.repeat(levels)
    return _taking_part(rows, found, kept.reshape(-1)[position])


def in_torch(
    x: Tensor,
    codebooks: Tensor,
    indices: Tensor,
    mask: Tensor | None,
    clock: Tensor,
    count: int,
    seed: int,
    channel_dim: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The specification, on any device, for at least one position: also the row numbers.

    From the level on that a row takes no part in, what is said of it is not used.
    """
    levels = indices.shape[-1]
    dtype = wide(x.dtype, codebooks.dtype)
    position, found = drawn_positions(x, mask, clock, count, seed, channel_dim)
    chosen = indices.reshape(-1, levels)[position].clamp(min=0)
    left = [take_rows(x, position, channel_dim).to(dtype)]
    for level in range(levels - 1):
        left.append(left[-1] - codebooks[level % len(codebooks)].to(dtype)[chosen[:, level]])
    return torch.stack(left), found, position


def _taking_part(rows: Tensor, found: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """``kept`` (count,) is that of the rows. No shape depends on it."""
    levels, count = rows.shape[:2]
    level = torch.arange(levels, device=rows.device)[:, None]
    slot = torch.arange(count, device=rows.device)
    order, reached = flagged_first((kept > level) & (slot < found))
    return rows[level, order], reached


def _fake(
    x: Tensor,
    codebooks: Tensor,
    indices: Tensor,
    mask: Tensor | None,
    kept: Tensor | None,
    clock: Tensor,
    count: int,
    seed: int,
    channel_dim: int,
) -> tuple[Tensor, Tensor]:
    dtype = wide(x.dtype, codebooks.dtype)
    rows = x.new_empty(indices.shape[-1], count, x.shape[channel_dim], dtype=dtype)
    return rows, clock.new_empty(indices.shape[-1])


sample_residuals = define(
    "sample_residuals(Tensor x, Tensor codebooks, Tensor indices, Tensor? mask, Tensor? kept, "
    "Tensor clock, int count, int seed, int channel_dim) -> (Tensor rows, Tensor found)",
    _impl,
    _fake,
)
