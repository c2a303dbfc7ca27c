"""sample_rows: distinct rows of a batch, chosen by a hash instead of a generator."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vqkernels._layout import row_shape, take_rows
from vqkernels._numerics import unit_rows, wide
from vqkernels.ops._hash import hash32
from vqkernels.ops._library import define
from vqkernels.ops.dispatch import implementation


def _impl(
    x: Tensor,
    mask: Tensor | None,
    clock: Tensor,
    count: int,
    seed: int,
    metric: str,
    channel_dim: int,
) -> tuple[Tensor, Tensor]:
    """``count`` rows in hashed order and how many of them, at the front, are usable.

    The positions that count are cut into ``count`` equal strata and one is drawn from each, so the
    rows are distinct and spread over the batch. With fewer positions than ``count`` each is taken
    once, and what follows the usable rows repeats them. Shapes never depend on the mask.
    """
    n, dim = math.prod(row_shape(x, channel_dim)), x.shape[channel_dim]
    if n == 0:
        return x.new_zeros(count, dim, dtype=wide(x.dtype)), torch.zeros_like(clock)
    draw = implementation("sample_rows", in_torch, x)
    rows, found = draw(x, mask, clock, count, seed, channel_dim)
    if metric == "cosine":
        rows = unit_rows(rows.double()).to(rows.dtype)
    return rows, found


def in_torch(
    x: Tensor, mask: Tensor | None, clock: Tensor, count: int, seed: int, channel_dim: int
) -> tuple[Tensor, Tensor]:
    """The specification, on any device, for at least one position."""
    position, found = drawn_positions(x, mask, clock, count, seed, channel_dim)
    return take_rows(x, position, channel_dim).to(wide(x.dtype)), found


def drawn_positions(
    x: Tensor, mask: Tensor | None, clock: Tensor, count: int, seed: int, channel_dim: int
) -> tuple[Tensor, Tensor]:
    """Row numbers of the sample, and how many at the front are of usable rows."""
    n = math.prod(row_shape(x, channel_dim))
    slot = torch.arange(count, device=x.device)
    if mask is None:
        total = torch.full_like(clock, n)
    else:
        running = mask.reshape(-1).cumsum(0)
        total = running[-1]
    low = slot * total // count
    width = ((slot + 1) * total // count - low).clamp(min=1)
    drawn = low + hash32(slot, clock, seed) % width
    position = torch.where(total < count, slot % total.clamp(min=1), drawn)
    if mask is not None:
        position = torch.searchsorted(running, position + 1).clamp(max=n - 1)
    finite = take_rows(x, position, channel_dim).isfinite().all(dim=1)
    usable = (slot < total) & finite
    order = torch.where(usable, 0, 1 << 32) + hash32(slot, clock, seed + 1)
    order = order.argsort(stable=True)
    found = usable.sum()
    return position[order[slot % found.clamp(min=1)]], found


def _fake(
    x: Tensor,
    mask: Tensor | None,
    clock: Tensor,
    count: int,
    seed: int,
    metric: str,
    channel_dim: int,
) -> tuple[Tensor, Tensor]:
    rows = x.new_empty(count, x.shape[channel_dim], dtype=wide(x.dtype))
    return rows, torch.empty_like(clock)


sample_rows = define(
    "sample_rows(Tensor x, Tensor? mask, Tensor clock, int count, int seed, str metric, "
    "int channel_dim) -> (Tensor rows, Tensor found)",
    _impl,
    _fake,
)
