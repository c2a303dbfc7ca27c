"""What a data set is: integer signals in three splits, and a training set that can be redrawn.

A training item can be drawn many times: draw 0 is the item itself, or its canonical crop; further
draws are warped copies, other crops, or (procedural sets) new items altogether. A draw is a
function of the seed, the row and the draw's number, so an interrupted epoch goes on exactly.
"""

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

    Attributes:
        size: rows.
        draws: different draws of a row; None where there is no end of them.
    """

    size: int
    draws: int | None

    def batch(self, rows: Tensor, draws: Tensor) -> Split:
        """`(n,)` int64 rows in `0 .. size - 1` and draws to their items, in that order."""
        ...


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

    def clean_train(self, limit: int | None = None) -> Split:
        """Draw 0 of every training row, or of the first `limit`."""
        count = self.train.size if limit is None else min(limit, self.train.size)
        rows = torch.arange(count)
        return self.train.batch(rows, torch.zeros_like(rows))
