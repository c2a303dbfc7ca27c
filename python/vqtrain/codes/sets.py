"""Codes in memory, and a training set of codes that stays on disk."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vqtrain.data.dataset import check_within
from vqtrain.models.tokenizer import Codes


class CodeSet(NamedTuple):
    """The codes of one split, or of one batch.

    Attributes:
        codes: one `(N, *grid)` int64 tensor per level, top level first.
        labels: `(N,)` int64. Labels from the number of classes on mark warped copies.
        rows: `(N,)` int64, the row of the source item in the original data set.
        draws: `(N,)` int64, which draw of the item.
    """

    codes: Codes
    labels: Tensor
    rows: Tensor
    draws: Tensor

    def to(self, device: torch.device | str) -> "CodeSet":
        return CodeSet(
            tuple(level.to(device) for level in self.codes),
            *(tensor.to(device) for tensor in self[1:]),
        )

    def take(self, index: Tensor) -> "CodeSet":
        return CodeSet(
            tuple(level[index] for level in self.codes), *(tensor[index] for tensor in self[1:])
        )

    def long(self) -> "CodeSet":
        """The same with int64 codes."""
        return self._replace(codes=tuple(level.long() for level in self.codes))

    @staticmethod
    def cat(parts: Sequence["CodeSet"]) -> "CodeSet":
        """Items of all parts, in order."""
        levels = zip(*(part.codes for part in parts), strict=True)
        return CodeSet(
            tuple(torch.cat(level) for level in levels),
            *(torch.cat(tensors) for tensors in zip(*(part[1:] for part in parts), strict=True)),
        )


@dataclass(frozen=True)
class ShardedCodes:
    """A training set of codes (see `vqtrain.data.TrainSet`), read from memory-mapped shards.

    Args:
        shards: draw 0 of all rows, then draw 1 of all rows, and so on, cut into pieces of
            `shard_items`; the last one may be shorter.
        size: rows.
        draws: draws of each row.
        shard_items: items of all shards but the last.
    """

    shards: tuple[CodeSet, ...]
    size: int
    draws: int
    shard_items: int

    def batch(self, rows: Tensor, draws: Tensor) -> CodeSet:
        """`(n,)` int64 rows in `0 .. size - 1` and draws to their codes, in that order.

        Raises:
            ValueError: if a row or a draw is out of range.
        """
        check_within(rows, draws, self.size, self.draws)
        items = draws * self.size + rows
        shard, offset = items // self.shard_items, items % self.shard_items
        order = shard.argsort(stable=True)
        numbers, counts = shard[order].unique_consecutive(return_counts=True)
        offsets = offset[order].split(counts.tolist())
        parts = [
            self.shards[number].take(index).long()
            for number, index in zip(numbers.tolist(), offsets, strict=True)
        ]
        if not parts:
            return self.shards[0].take(items).long()
        return CodeSet.cat(parts).take(order.argsort())
