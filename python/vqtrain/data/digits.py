"""The 1797 handwritten digits inside scikit-learn's wheel: 8x8 pixels, 17 grey levels, 10 classes.

The splits are committed index files (`splits/digits-*.json`), so that numbers of different
machines and versions are computed on the same images:

- `stratified`: 1237 train, 200 validation, 360 test, each with the classes in proportion. Writers
  are shared.
- `ordered`: the same sizes in file order. The file is grouped by writer, so the test writers are
  new.
"""

import json
from importlib import resources
from typing import Literal

import torch
from sklearn.datasets import load_digits

from vqtrain.data.augment import with_warped_copies
from vqtrain.data.dataset import Dataset, Split
from vqtrain.models.tokenizer import Signal

LEVELS = 17
CLASSES = tuple(str(digit) for digit in range(10))


def load_split(name: str) -> dict[str, list[int]]:
    """Reads a committed split: row indices under the keys `train`, `validation` and `test`.

    Raises:
        ValueError: if there is no such split.
    """
    file = resources.files("vqtrain.data") / "splits" / f"digits-{name}.json"
    if not file.is_file():
        raise ValueError(f"split must be 'stratified' or 'ordered', got {name!r}")
    split: dict[str, list[int]] = json.loads(file.read_text())
    return split


def load_digits_dataset(
    split: Literal["stratified", "ordered"] = "stratified", warped_copies: int = 0, seed: int = 0
) -> Dataset:
    """Loads the digits with a committed split.

    Args:
        split: which index file.
        warped_copies: flagged copies of each training image, its draws from 1 on (labels 10 to
            19); validation and test stay clean.
        seed: decides the warps.

    Returns:
        Images `(N, 1, 8, 8)` uint8 with levels 0 .. 16.

    Raises:
        ValueError: if the split is unknown or `warped_copies` is negative.
    """
    source = load_digits()
    images = torch.from_numpy(source.images).to(torch.uint8)[:, None]
    labels = torch.from_numpy(source.target).to(torch.int64)
    everything = Split(images, labels, torch.arange(len(labels)))
    parts = {key: everything.take(torch.tensor(rows)) for key, rows in load_split(split).items()}
    train = with_warped_copies(parts["train"], warped_copies, len(CLASSES), LEVELS, seed)
    return Dataset(
        train=train,
        validation=parts["validation"],
        test=parts["test"],
        signal=Signal(
            size=tuple(images.shape[2:]),
            channels=1,
            levels=LEVELS,
            num_labels=len(CLASSES) * (2 if warped_copies else 1),
        ),
        class_names=CLASSES,
    )
