"""The k-means loop that initialises a codebook from the first batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vqkernels import ops
from vqkernels.distributed import Group, Statistics
from vqkernels.nn._ranks import reduce

_ROWS_PER_CODE = 256
_SEED = 0


def initialise_(
    codebook: Tensor,
    cluster_size: Tensor | None,
    embed_sum: Tensor | None,
    initialised: Tensor,
    owner: Tensor,
    frozen: Tensor | None,
    x: Tensor,
    mask: Tensor | None,
    *,
    metric: str,
    channel_dim: int,
    backend: str | None,
    group: Group | None,
    iterations: int,
) -> None:
    """``iterations`` of Lloyd's on at most 256*K rows of x; then ``initialised`` is 1.

    Changes nothing when ``initialised`` is already 1 or no row is usable. The rows are picked by a
    counter-based permutation: the same batch always gives the same codebook. Codes that ``frozen``
    marks stay where they are and take rows all the same. ``owner`` is told when the codebook is
    initialised.

    The ranks of ``group`` share the 256*K rows evenly and end with the same codebook. A rank
    without usable rows takes part in every collective.
    """
    k = codebook.shape[0]
    rows, found, usable = sampled(x, mask, k, metric, channel_dim, group)
    seeds = rows
    if group is not None:
        seeds, found = _seeds(rows, found, k, group)

    def assign() -> tuple[Tensor, Tensor]:
        indices, _ = ops.nearest_code(rows, codebook, None, metric, 1, backend)
        counts, sums = ops.code_sums(rows, indices, k, usable, metric, 1, None)
        if group is not None:
            [(counts, summed, _, _)] = reduce([Statistics(counts, sums, None, None)], group)
            assert summed is not None
            sums = summed
        return counts, sums

    state = (codebook, cluster_size, embed_sum, initialised)
    lloyd_(*state, owner, frozen, seeds, found, metric, assign, iterations)


def sampled(
    x: Tensor,
    mask: Tensor | None,
    k: int,
    metric: str,
    channel_dim: int,
    group: Group | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The rows that k-means looks at, at least one, how many are usable, and which."""
    limit = _ROWS_PER_CODE * k // (1 if group is None else group.size)
    count = max(min(x.numel() // max(x.shape[channel_dim], 1), limit), 1)
    clock = torch.zeros((), dtype=torch.int64, device=x.device)
    rows, found = ops.sample_rows(x, mask, clock, count, _SEED, metric, channel_dim)
    return rows, found, torch.arange(count, device=x.device) < found


def lloyd_(
    codebook: Tensor,
    cluster_size: Tensor | None,
    embed_sum: Tensor | None,
    initialised: Tensor,
    owner: Tensor,
    frozen: Tensor | None,
    seeds: Tensor,
    found: Tensor,
    metric: str,
    assign: Callable[[], tuple[Tensor, Tensor]],
    iterations: int,
) -> None:
    """The iterations, from the first ``found`` seeds; ``assign`` gives the counts and sums."""
    ops.kmeans_start_(codebook, initialised, seeds, found, frozen)
    for _ in range(iterations):
        counts, sums = assign()
        state = (codebook, cluster_size, embed_sum, initialised)
        ops.kmeans_step_(*state, counts, sums, found, frozen, metric)
    ops.kmeans_finish_(initialised, found, owner)


def _seeds(rows: Tensor, found: Tensor, k: int, group: Group) -> tuple[Tensor, Tensor]:
    """K of the usable rows of all ranks, and how many usable rows there are.

    The ranks' usable rows are numbered through, rank after rank. The seeds are spread evenly over
    the numbers, so that every rank gives its share, whatever it has; with fewer rows than codes
    row k mod total becomes seed k.
    """
    rank = torch.arange(group.size, device=rows.device)
    each = torch.where(rank == group.rank, found, 0)
    ops.all_reduce_(each, group.name)
    total = each.sum()
    slot = torch.arange(k, device=rows.device)
    number = torch.where(total < k, slot % total.clamp(min=1), slot * total // k)
    own = number - each[: group.rank].sum()
    mine = (own >= 0) & (own < each[group.rank])
    seeds = torch.where(mine[:, None], rows[own.clamp(0, len(rows) - 1)], 0)
    ops.all_reduce_(seeds, group.name)
    return seeds, total
