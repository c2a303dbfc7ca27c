"""Shard: the codes that one rank holds of a codebook which no rank holds whole."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from vqkernels import _checks, distributed, ops
from vqkernels._numerics import fixed_sum
from vqkernels.distributed import Group, Statistics
from vqkernels.nn import _kmeans
from vqkernels.nn._learned_codebook import LearnedCodebook
from vqkernels.options import EMA, Revive

_ALONE = Group("", 0, 1)


class Shard(LearnedCodebook):
    """One part of ``num_embeddings`` codes, and how it learns: as that part of a whole codebook.

    What a codebook does by sums over all its codes, it does by sums over all ranks. They come with
    the statistics, in one collective per training forward, so that a move between two forwards
    communicates nothing. What the ranks must agree in they derive from the same rows.

    Attributes:
        part: int64 (3,), the first code held here, the one after the last, and K.
        whole: float64 (2,), mass of the whole codebook at the last forward and rows that it has
            taken since it moved; None with ``update=None``.
    """

    part: Tensor
    whole: Tensor | None

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        group: dist.ProcessGroup | None,
        update: EMA | None,
        metric: str,
        init: str | Tensor,
        revive: Revive | None,
        backend: str | None,
    ) -> None:
        _checks.integer_at_least("num_embeddings", num_embeddings, 1)
        _checks.integer_at_least("embedding_dim", embedding_dim, 1)
        ranks = distributed.group_of(distributed.name_of(group, "group")) or _ALONE
        if num_embeddings < ranks.size:
            raise ValueError(
                f"num_embeddings must be at least {ranks.size}, the ranks of group, "
                f"got {num_embeddings}"
            )
        bounds = [_first(num_embeddings, rank, ranks.size) for rank in range(ranks.size + 1)]
        first, stop = bounds[ranks.rank], bounds[ranks.rank + 1]
        super().__init__(
            stop - first,
            embedding_dim,
            update=update,
            metric=metric,
            init=_initial_part(init, num_embeddings, embedding_dim, bounds, ranks.rank),
            revive=revive,
            frozen=None,
            process_group=group,
            backend=backend,
        )
        if isinstance(init, str) and init == "kmeans":
            self._init_done = False
            self.initialised.fill_(0)
        self.num_embeddings = int(num_embeddings)
        self.first, self.rank, self.ranks = first, ranks.rank, ranks.size
        self.register_buffer("part", torch.tensor([first, stop, num_embeddings]))
        if update is None:
            self.whole = None
        else:
            self.register_buffer("whole", torch.zeros(2, dtype=torch.float64))

    @property
    def _group(self) -> None:
        """The ranks hold different codes: none of what ranks do to be equal is for them."""
        return None

    @property
    def group(self) -> Group | None:
        """The ranks that hold the codebook; None where it is here alone."""
        found = distributed.group_of(self._group_name)
        rank, size = (0, 1) if found is None else (found.rank, found.size)
        if (rank, size) != (self.rank, self.ranks):
            raise RuntimeError(
                f"group must have this process as rank {self.rank} of {self.ranks}, for which the "
                f"codebook was split, got rank {rank} of {size}"
            )
        return found

    @property
    def _group_for_ops(self) -> str | None:
        group = self.group
        return None if group is None else group.name

    @property
    def _vectors(self) -> Tensor:
        """The codes as they stand in ``quantized``."""
        codes = self.codebook.detach()
        return ops.normalize_codes(codes)[0] if self.metric == "cosine" else codes

    @torch.no_grad()
    def nearest(self, x: Tensor, channel: int, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers of the nearest codes in the whole codebook, as ``ops.nearest_shard``."""
        packed = self._packed()
        options = (packed, self.first, self.metric, channel, self.backend, self._group_for_ops)
        return ops.nearest_shard(x.detach(), vectors, *options)

    def rows(self, indices: Tensor, vectors: Tensor) -> Tensor:
        """(N, D) vectors of codes of the whole codebook."""
        return ops.shard_rows(
            indices, vectors, self.first, self.num_embeddings, self._group_for_ops
        )

    @torch.no_grad()
    def statistics(
        self, x: Tensor, indices: Tensor, mask: Tensor | None, channel: int
    ) -> Statistics:
        """Those of the codes held here, and candidates that no other rank has."""
        counts, sums = self._sums(x.detach(), indices, mask, channel)
        rows, found = self._candidates(x, mask, channel)
        if rows is not None and found is not None:
            # Every ``ranks``-th one: two ranks would revive codes by the same row otherwise.
            found = (found - self.rank + self.ranks - 1).div(self.ranks, rounding_mode="floor")
            slot = torch.arange(len(rows), device=rows.device)
            rows = rows[
                (slot % found.clamp(min=1) * self.ranks + self.rank).clamp(max=len(rows) - 1)
            ]
        return Statistics(counts, sums, rows, found)

    def _sums(
        self, x: Tensor, indices: Tensor, mask: Tensor | None, channel: int
    ) -> tuple[Tensor, Tensor]:
        own, k = indices - self.first, len(self.codebook)
        own = torch.where((own >= 0) & (own < k), own, -1)
        return ops.code_sums(x, own, k, mask, self.metric, channel, None)

    def _of_the_whole(self) -> tuple[Any, ...]:
        return (self.whole, self.num_embeddings)

    def _totals(self, statistics: Statistics) -> tuple[Tensor, ...]:
        assert self.whole is not None
        assert self.cluster_size is not None
        mass = fixed_sum(self.cluster_size).double()
        totals = torch.stack([mass, statistics.counts.sum().double()])
        if (group := self._group_for_ops) is not None:
            ops.all_reduce_(totals, group)
        return self.whole, totals

    def _initialise(self, x: Tensor, mask: Tensor | None, channel: int) -> None:
        if not self._init_done:
            self._run_kmeans(x, mask, channel)

    @torch.no_grad()
    def _run_kmeans(self, x: Tensor, mask: Tensor | None, channel: int) -> None:
        """Of the whole codebook: all ranks take the same rows, and seeds by the codes' numbers."""
        rows, found, usable = _kmeans.sampled(
            x.detach(), mask, self.num_embeddings, self.metric, channel
        )
        number = torch.arange(self.first, self.first + len(self.codebook), device=rows.device)
        seeds = rows[number % found.clamp(min=1)]

        def assign() -> tuple[Tensor, Tensor]:
            # Rows and codes are unit vectors here where the metric is the cosine.
            options = (None, self.first, self.metric, 1, self.backend, self._group_for_ops)
            indices, _ = ops.nearest_shard(rows, self.codebook, *options)
            return self._sums(rows, indices, usable, 1)

        state = (self.codebook, self.cluster_size, self.embed_sum, self.initialised)
        iterations = self._kmeans_iterations
        _kmeans.lloyd_(
            *state, self._owner_key, None, seeds, found, self.metric, assign, iterations
        )

    def _misfits(self, state_dict: dict[str, Any], prefix: str) -> list[str]:
        loaded = state_dict.get(f"{prefix}part")
        if isinstance(loaded, Tensor) and not (loaded.is_meta or self.part.is_meta):
            expected, got = self.part.tolist(), loaded.tolist()
            if expected != got:
                return [f"{prefix}part must be {_said(expected)}, got {_said(got)}"]
        return super()._misfits(state_dict, prefix)


def _said(part: list[int]) -> str:
    return "codes {} to {} of {}".format(*part) if len(part) == 3 else str(part)


def _first(num_embeddings: int, rank: int, ranks: int) -> int:
    """The first code of a rank; the first ranks hold one more where they cannot be even."""
    return num_embeddings // ranks * rank + min(rank, num_embeddings % ranks)


def _initial_part(
    init: str | Tensor, k: int, d: int, bounds: list[int], rank: int
) -> str | Tensor:
    """This rank's codes. With one seed on all ranks they draw in turns, and nothing twice."""
    if isinstance(init, Tensor):
        _checks.codebook(init, "init")
        _checks.shaped("init", init, (k, d))
        return init[bounds[rank] : bounds[rank + 1]]
    part: str | Tensor = init
    if init in ("kmeans", "normal", "uniform"):
        for other, (first, stop) in enumerate(pairwise(bounds)):
            drawn = torch.empty(stop - first, d, dtype=torch.float32)
            drawn = drawn.uniform_(-1.0 / k, 1.0 / k) if init == "uniform" else drawn.normal_()
            part = drawn if other == rank else part
    return part
