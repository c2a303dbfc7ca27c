"""Which items a step trains on: a pure function of the seed and the step.

Nothing is carried from one step to the next, so training that was interrupted in mid-epoch goes on
with the items it would have taken, and every rank knows the batches of all.
"""

import functools
from typing import NamedTuple

import torch
from torch import Tensor

# What tells the permutations of warped items apart from those of the items themselves.
_ITEMS, _WARPED = 0, 1


class Order(NamedTuple):
    """Shuffled epochs over the rows of a training set, and the draw of each row to take.

    Without `clean_share`, epoch e takes draw e of every row, modulo `draws` where there is an end
    of them. With it, that share of every batch is draw 0 of rows (the items themselves), and the
    rest goes through all other draws, which mostly are warped copies: they outnumber the items,
    and a fixed share keeps the clean classes, the only ones that are evaluated and sampled, from
    being a small part of a batch.

    Attributes:
        size: rows of the training set.
        draws: different draws of a row; None where there is no end of them.
        batch_size: items in a step, over all ranks.
        clean_share: share of them that are draw 0, in (0, 1]; taken as 1 where that is the only
            draw. None does not distinguish draws.
        seed: decides the permutations.
    """

    size: int
    draws: int | None
    batch_size: int
    clean_share: float | None
    seed: int

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """The items of a step.

        Args:
            step: counted from 0.

        Returns:
            Rows and draws, `(batch_size,)` int64 each, on the CPU.
        """
        if self.clean_share is None:
            rows, epochs = self._stream(_ITEMS, self.size, step, self.batch_size)
            return rows, epochs if self.draws is None else epochs % self.draws
        warped = 0
        if self.draws != 1:
            warped = self.batch_size - max(1, round(self.batch_size * self.clean_share))
        clean_rows, _ = self._stream(_ITEMS, self.size, step, self.batch_size - warped)
        copies = 1 if self.draws is None else max(self.draws - 1, 1)
        items, epochs = self._stream(_WARPED, self.size * copies, step, warped)
        # Endless draws are gone through epoch by epoch, a finite number of them all in one.
        draws = epochs if self.draws is None else items // self.size
        return (
            torch.cat((clean_rows, items % self.size)),
            torch.cat((torch.zeros_like(clean_rows), draws + 1)),
        )

    def _stream(self, kind: int, size: int, step: int, count: int) -> tuple[Tensor, Tensor]:
        """Items `step * count` and following of an endless sequence of epochs; which epoch each.

        A batch may span two epochs, and several of a small set.
        """
        position = torch.arange(step * count, (step + 1) * count)
        epochs = position // size
        items = torch.empty_like(position)
        for epoch in epochs.unique().tolist():
            here = epochs == epoch
            items[here] = _permutation(self.seed, kind, epoch, size)[position[here] % size]
        return items, epochs


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, kind: int, epoch: int, size: int) -> Tensor:
    """The order of an epoch. The two kinds and two epochs of a batch fit into the cache."""
    generator = torch.Generator().manual_seed(_mixed(seed, kind, epoch))
    return torch.randperm(size, generator=generator)


def _mixed(*values: int) -> int:
    """Integers to 63 bits, by the rounds of splitmix64: near seeds give unrelated generators."""
    state = 0
    for value in values:
        state = (state + value + 0x9E3779B97F4A7C15) % 2**64
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ state >> 27) * 0x94D049BB133111EB % 2**64
        state ^= state >> 31
    return state >> 1
