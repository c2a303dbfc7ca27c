"""Items that are decoded when they are drawn: what folders and hub data sets have in common."""

import hashlib
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from vqtrain.data.config import DataConfig
from vqtrain.data.counter import uniforms
from vqtrain.data.dataset import Dataset, Split, check_within
from vqtrain.data.procedural import STREAMS, between
from vqtrain.models.tokenizer import Signal, Size

SPLITS = tuple(STREAMS)
LARGEST_ZOOM = 1.25


class Source(NamedTuple):
    """Where items come from.

    Attributes:
        title: of the source, for error texts.
        names: one per item; stable, since a hash of it may decide the split.
        splits: split of each item; empty where the source does not say.
        labels: `(N,)` int64.
        class_names: in label order.
        read: an item's number and the least size that is wanted to `(C, *larger)` uint8.
        signal: what an item becomes.
        mirrored: whether an item's mirror image is as good as the item.
    """

    title: str
    names: Sequence[str]
    splits: Sequence[str]
    labels: Tensor
    class_names: tuple[str, ...]
    read: Callable[[int, Size], Tensor]
    signal: Signal
    mirrored: bool


@dataclass(frozen=True)
class DecodedTrainSet:
    """Rows that are read again for every draw: draw 0 is the middle of an item.

    Args:
        source: of the items.
        numbers: `(size,)` int64, the items of this set.
        seed: decides the crops.
        augment: whether draws from 1 on are crops elsewhere, of the item up to a quarter larger,
            and mirrored half of the time where that makes sense; without it, draw 0 is the only
            one.
    """

    source: Source
    numbers: Tensor
    seed: int
    augment: bool

    @property
    def size(self) -> int:
        return len(self.numbers)

    @property
    def draws(self) -> int | None:
        return None if self.augment else 1

    def batch(self, rows: Tensor, draws: Tensor) -> Split:
        """See `TrainSet.batch`.

        Raises:
            ValueError: if a row or a draw is out of range, or an item cannot be decoded.
        """
        check_within(rows, draws, self.size, self.draws)
        numbers = self.numbers[rows]
        size = self.source.signal.size
        u = uniforms((STREAMS["train"], self.seed), rows, draws, 2 + len(size))
        # The middle: no zoom, no mirror, the crop half-way along every axis.
        middle = torch.tensor([0.0, 1.0] + [0.5] * len(size), dtype=u.dtype)
        places = torch.where((draws == 0)[:, None], middle, u)
        x = torch.zeros(len(rows), self.source.signal.channels, *size, dtype=torch.uint8)
        # Decoders of pictures and sounds let other threads run.
        with ThreadPoolExecutor() as pool:
            items = pool.map(self._item, numbers.tolist(), places)
            for row, item in enumerate(items):
                x[row] = item
        return Split(x, self.source.labels[numbers], numbers)

    def _item(self, number: int, place: Tensor) -> Tensor:
        size = self.source.signal.size
        zoom = between(place[0], 1, LARGEST_ZOOM).item() if self.source.mirrored else 1.0
        item = self.source.read(number, tuple(math.ceil(length * zoom) for length in size))
        for axis, (length, share) in enumerate(zip(size, place[2:].tolist(), strict=True), 1):
            item = item.narrow(axis, int(share * (item.shape[axis] - length + 1)), length)
        return item.flip(-1) if self.source.mirrored and place[1] < 0.5 else item


def dataset_of(source: Source, config: DataConfig, seed: int) -> Dataset:
    """Splits a source; held-out items are decoded at once.

    Raises:
        ValueError: if a split would be empty.
    """
    members = members_of(source.title, source.names, source.splits, config)
    sets = {
        split: DecodedTrainSet(source, numbers, seed, config.augment and split == "train")
        for split, numbers in members.items()
    }
    return Dataset.of(sets, source.signal, source.class_names)


def members_of(
    title: str, names: Sequence[str], splits: Sequence[str], config: DataConfig
) -> dict[str, Tensor]:
    """The items of each split, as `(size,)` int64 numbers.

    Training items are in the order of a hash of their names. As they stand they mostly come class
    by class, and the first so many of them would be of a few classes.

    Args:
        title: of the source, for the error text.
        names: of all items.
        splits: of all items, or nothing where the source does not say. A held-out split that is
            not among them is cut from the training items by a hash of their names.
        config: `held_out_share`, of the names that go into such a split, and `held_out_limit`.

    Raises:
        ValueError: if a split would be empty.
    """
    missing = [split for split in SPLITS[1:] if split not in splits]
    found = [
        hashed_split(name, missing, config.held_out_share) if split == "train" else split
        for name, split in zip(names, splits or ["train"] * len(names), strict=True)
    ]
    members = {
        split: torch.tensor([number for number, its in enumerate(found) if its == split])
        for split in SPLITS
    }
    counts = {split: len(numbers) for split, numbers in members.items()}
    if not all(counts.values()):
        raise ValueError(f"{title} must have items in every split, got {counts}")
    for split in SPLITS[1:]:
        kept = min(counts[split], config.held_out_limit or counts[split])
        members[split] = members[split][torch.arange(kept) * counts[split] // kept]
    train = members["train"]
    places = [hashed(names[number]) for number in train.tolist()]
    members["train"] = train[torch.tensor(places, dtype=torch.float64).argsort(stable=True)]
    return members


def hashed_split(name: str, held_out: Sequence[str], share: float) -> str:
    """The split of a name: `share` of all names go to each of `held_out`, others to `train`.

    It depends on nothing but the name, so new items leave old ones where they are.
    """
    index = int(hashed(name) / share)
    return held_out[index] if index < len(held_out) else "train"


def hashed(name: str) -> float:
    """A name's place in [0, 1), the same everywhere and for ever."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
