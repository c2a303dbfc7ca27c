"""What a data set is: integer images, labels and the row each image came from, in three splits."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class ImageSet(NamedTuple):
    """One split.

    Attributes:
        images: `(N, C, H, W)` uint8, grey levels `0 .. levels - 1`.
        labels: `(N,)` int64. Labels from `len(class_names)` on mark warped copies (see
            `augment.py`).
        rows: `(N,)` int64, the row of the source image in the original data set.
    """

    images: Tensor
    labels: Tensor
    rows: Tensor

    def to(self, device: torch.device | str) -> "ImageSet":
        return ImageSet(*(tensor.to(device) for tensor in self))

    def take(self, index: Tensor) -> "ImageSet":
        return ImageSet(*(tensor[index] for tensor in self))


class ImageDataset(NamedTuple):
    """Three disjoint splits of one data set.

    Attributes:
        train: clean training images, followed by their warped copies if any were asked for.
        validation: clean images on which every choice (step, smoothing) is made.
        test: clean images on which the reported numbers are computed, once.
        levels: number of grey levels of a pixel.
        class_names: names of the clean classes, in label order.
        num_labels: number of labels a model must know; twice the classes if there are warped
            copies.
    """

    train: ImageSet
    validation: ImageSet
    test: ImageSet
    levels: int
    class_names: tuple[str, ...]
    num_labels: int

    @property
    def clean_train(self) -> ImageSet:
        """The training images without their warped copies."""
        return self.train.take(self.train.labels < len(self.class_names))


def batches(
    clean: Tensor, size: int, clean_share: float, generator: torch.Generator
) -> Iterator[Tensor]:
    """Yields index tensors for ever: a fixed share of clean rows, the rest warped.

    Each kind is gone through in shuffled epochs. The warped copies outnumber the originals; a
    fixed share keeps the clean classes, the only ones that are evaluated and sampled, from being
    a small part of every batch.

    Args:
        clean: `(N,)` bool, true at clean rows.
        size: rows in a batch.
        clean_share: share of a batch that is clean, in (0, 1]; without warped rows it is taken as
            1.
        generator: CPU generator that decides the order.

    Yields:
        `(size,)` int64 indices on the CPU.

    Raises:
        ValueError: if no row is clean or `clean_share` is outside (0, 1].
    """
    if not 0 < clean_share <= 1:
        raise ValueError(f"clean_share must be in (0, 1], got {clean_share}")
    clean_rows, warped_rows = clean.nonzero().flatten().cpu(), (~clean).nonzero().flatten().cpu()
    if not len(clean_rows):
        raise ValueError("clean must contain at least one true entry, got none")
    count = max(1, round(size * clean_share)) if len(warped_rows) else size
    first = _shuffled(clean_rows, count, generator)
    if count == size:
        yield from first
    second = _shuffled(warped_rows, size - count, generator)
    while True:
        yield torch.cat((next(first), next(second)))


def _shuffled(rows: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Index batches from one endless sequence of epochs; a batch may span two epochs."""
    queue = rows[:0]
    while True:
        while len(queue) < size:
            queue = torch.cat((queue, rows[torch.randperm(len(rows), generator=generator)]))
        yield queue[:size]
        queue = queue[size:]
