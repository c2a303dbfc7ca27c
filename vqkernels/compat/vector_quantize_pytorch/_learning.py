"""How codebooks learn what forwards have found: over all ranks, by one collective."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vqkernels.compat.vector_quantize_pytorch._codebook import Codebook
from vqkernels.distributed import Statistics
from vqkernels.nn import _ranks


class Learnt(NamedTuple):
    """What one forward has found for the tables of a codebook, which have not moved yet.

    Attributes:
        codebook: which has as many tables as there are ``statistics``.
        statistics: of this rank.
        ema_update: whether its codes are to follow their averages.
    """

    codebook: Codebook
    statistics: list[Statistics]
    ema_update: bool


def learn(learnt: Sequence[Learnt]) -> None:
    """Moves the codebooks, each of which is in ``learnt`` once."""
    for book, statistics, ema_update in _summed(learnt):
        moves = ema_update and not book.manual_ema_update
        for number, found in enumerate(statistics):
            assert found.sums is not None
            rows = _usable(found)
            book.take_in(number, found.counts, found.sums, moves=moves, rows=rows)


def learn_shared(learnt: Sequence[Learnt]) -> None:
    """Moves the one codebook, of one table, that the levels of a residual quantizer share.

    The averages decay once per level, as theirs do; then the codes follow, and dead ones are
    replaced by vectors of all levels in turn.
    """
    found = [each.statistics[0] for each in _summed(learnt)]
    book = learnt[0].codebook
    for counts, sums, _, _ in found:
        assert sums is not None
        book.take_in(0, counts, sums, moves=False)
    if learnt[0].ema_update:
        book.update_ema()
    candidates = [_usable(each) for each in found]
    rows = [each for each in candidates if each is not None]
    if rows:
        book.revive(0, torch.stack(rows, dim=1).flatten(0, 1))


def expire(book: Codebook, tables: Sequence[Tensor]) -> None:
    """Replaces dead codes of every table by rows of what it is given, (*positions, D)."""
    nothing = torch.zeros_like(book.cluster_size[0])
    statistics = [
        Statistics(nothing, None, *book.candidates(number, x, None))
        for number, x in enumerate(tables)
    ]
    for _, summed, _ in _summed([Learnt(book, statistics, False)]):
        for number, found in enumerate(summed):
            rows = _usable(found)
            if rows is not None:
                book.revive(number, rows)


def _summed(learnt: Sequence[Learnt]) -> list[Learnt]:
    """``learnt`` of all ranks that learn together; its codebooks have the same ones."""
    group = learnt[0].codebook.group
    if group is None:
        return list(learnt)
    rest = iter(_ranks.reduce([found for each in learnt for found in each.statistics], group))
    return [each._replace(statistics=[next(rest) for _ in each.statistics]) for each in learnt]


def _usable(found: Statistics) -> Tensor | None:
    """The candidates, infinite where there is none: such a row revives nothing."""
    if found.rows is None or found.found is None:
        return None
    return torch.where(found.found > 0, found.rows, torch.inf)
