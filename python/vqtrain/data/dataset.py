"""What a data set is: integer signals in three splits, and a training set that can be redrawn.

A training item can be drawn many times: draw 0 is the item itself, or its canonical crop; further
draws are warped copies, other crops, or (procedural sets) new items altogether. A draw is a
function of the seed, the row and the draw's number, so an interrupted epoch goes on exactly.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from vqtrain.models.tokenizer import Signal


class Split(NamedTuple):
    """Items of one split, or of one batch.

    Attributes:
        x: `(N, C, *size)` uint8 in `0 .. levels - 1`.
        labels: `(N,)` int64. Labels from the number of classes on mark warped copies.
        rows: `(N,)` int64, the row of the source item in the original data set.
    """

    x: Tensor
    labels: Tensor
    rows: Tensor

    def to(self, device: torch.device | str) -> "Split":
        return Split(*(tensor.to(device) for tensor in self))

    def take(self, index: Tensor) -> "Split":
        return Split(*(tensor[index] for tensor in self))


class TrainSet(Protocol):
    """Training items, drawn by row and draw.

    Rows are not sorted by class: the first so many of them stand for all.

    Attributes:
        size: rows.
        draws: different draws of a row; None where there is no end of them.
    """

    @property
    def size(self) -> int: ...

    @property
    def draws(self) -> int | None: ...

    def batch(self, rows: Tensor, draws: Tensor) -> Split:
        """`(n,)` int64 rows in `0 .. size - 1` and draws to their items, in that order."""
        ...


@dataclass(frozen=True)
class StoredTrainSet:
    """A training set that holds every draw.

    Args:
        items: draw 0 of all rows, then draw 1 of all rows, and so on.
        draws: how many there are of each row.
    """

    items: Split
    draws: int = 1

    def __post_init__(self) -> None:
        if self.draws < 1 or len(self.items.x) % self.draws:
            raise ValueError(
                f"draws must be a divisor of the number of items {len(self.items.x)}, "
                f"got {self.draws}"
            )

    @property
    def size(self) -> int:
        return len(self.items.x) // self.draws

    def batch(self, rows: Tensor, draws: Tensor) -> Split:
        """See `TrainSet.batch`.

        Raises:
            ValueError: if a row or a draw is out of range.
        """
        check_within(rows, draws, self.size, self.draws)
        return self.items.take(draws * self.size + rows)


def check_within(rows: Tensor, draws: Tensor, size: int, limit: int | None) -> None:
    """Refuses rows and draws that a training set of `size` rows and `limit` draws lacks."""
    for name, given, end in (("rows", rows, size), ("draws", draws, limit)):
        if not given.numel():
            continue
        low, high = given.min().item(), given.max().item()
        if low < 0 or (end is not None and high >= end):
            contract = "at least 0" if end is None else f"between 0 and {end - 1}"
            raise ValueError(f"{name} must be {contract}, got {low if low < 0 else high}")


class Dataset(NamedTuple):
    """Three disjoint splits.

    Attributes:
        train: what models are trained on.
        validation: clean items on which every choice (step, smoothing) is made.
        test: clean items on which the reported numbers are computed, once.
        signal: shape and levels of an item, and the labels a model must know; twice the classes
            if there are warped copies.
        class_names: names of the clean classes, in label order; one where there are no classes.
    """

    train: TrainSet
    validation: Split
    test: Split
    signal: Signal
    class_names: tuple[str, ...]

    @staticmethod
    def of(
        sets: Mapping[str, TrainSet], signal: Signal, class_names: tuple[str, ...]
    ) -> "Dataset":
        """A data set of which all items of validation and test are made now, in their draw 0.

        Args:
            sets: `train`, `validation` and `test`.
            signal: of an item.
            class_names: in label order.
        """

        def held_out(split: str) -> Split:
            rows = torch.arange(sets[split].size)
            return sets[split].batch(rows, torch.zeros_like(rows))

        return Dataset(
            sets["train"], held_out("validation"), held_out("test"), signal, class_names
        )

    def clean_train(self, limit: int | None = None) -> Split:
        """Draw 0 of every training row, or of the first `limit`."""
        count = self.train.size if limit is None else min(limit, self.train.size)
        rows = torch.arange(count)
        return self.train.batch(rows, torch.zeros_like(rows))
