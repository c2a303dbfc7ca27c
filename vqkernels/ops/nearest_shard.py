"""nearest_shard: the search of a codebook whose codes are split over the ranks of a group."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels._layout import as_rows, row_shape
from vqkernels._numerics import upcast
from vqkernels.backends import reference
from vqkernels.distributed import resolve
from vqkernels.ops._gathered import gathered
from vqkernels.ops._library import define
from vqkernels.ops.nearest_code import search


def _impl(
    x: Tensor,
    codebook: Tensor,
    prepared: list[Tensor] | None,
    first: int,
    metric: str,
    channel_dim: int,
    backend: str | None,
    group: str | None,
) -> tuple[Tensor, Tensor]:
    """Numbers in the whole codebook, whose rows from ``first`` are ``codebook``; ``alike``.

    Every rank finds its nearest code and evaluates F of it in float64; one collective exchanges
    (F, number), and the smallest pair wins: that of the whole search, ties included. Ranks hold
    ascending numbers, so that among equal F the first rank's is the lowest.

    ``alike`` is False where the ranks hold different x, whose distances say nothing together. The
    CPU raises. Runs in a recompute too, which needs the indices: on every rank.
    """
    own, _ = search(x, codebook, prepared, metric, channel_dim, backend)
    if group is None:
        return own, torch.ones((), dtype=torch.bool, device=x.device)
    rows, codes = upcast(as_rows(x, channel_dim)), upcast(codebook[own.reshape(-1)])
    score = reference.score_of(rows, codes, metric)
    score = score if metric == "l2" else -score
    usable = codes.isfinite().all(dim=1) & ~score.isnan()
    score = torch.where(usable, score, torch.inf)
    packed = torch.cat([score.view(torch.int64), own.reshape(-1) + first, _fingerprint(rows)])
    everyone = gathered(packed, resolve(group))
    scores, numbers, prints = everyone.split([len(rows), len(rows), 1], dim=1)
    alike = (prints == prints[:1]).all()
    if x.device.type == "cpu" and not alike:
        raise RuntimeError(
            "x must be the same on every rank of group, got different ones: "
            "pass gather=True where each rank has its own"
        )
    best, index = scores[0].view(torch.float64), numbers[0]
    for other, number in zip(scores[1:].view(torch.float64), numbers[1:], strict=True):
        better = other < best
        best, index = torch.where(better, other, best), torch.where(better, number, index)
    return index.masked_fill(best.isinf(), 0).reshape(own.shape), alike


def _fingerprint(rows: Tensor) -> Tensor:
    """One int64 of the bits of all rows and of their order, modulo 2^64."""
    weights = torch.arange(rows.numel(), device=rows.device) * 2 + 1
    return (rows.reshape(-1).view(torch.int64) * weights).sum().reshape(1)


def _fake(
    x: Tensor,
    codebook: Tensor,
    prepared: list[Tensor] | None,
    first: int,
    metric: str,
    channel_dim: int,
    backend: str | None,
    group: str | None,
) -> tuple[Tensor, Tensor]:
    indices = x.new_empty(row_shape(x, channel_dim), dtype=torch.int64)
    return indices, x.new_empty((), dtype=torch.bool)


nearest_shard = define(
    "nearest_shard(Tensor x, Tensor codebook, Tensor[]? prepared, int first, str metric, "
    "int channel_dim, str? backend, str? group) -> (Tensor indices, Tensor alike)",
    _impl,
    _fake,
)
