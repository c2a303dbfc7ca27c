"""`hf:NAME`: a data set of pictures of the library `datasets` (extra `hub`).

NAME is a folder that `save_to_disk` wrote, or whatever `load_dataset` knows, such as a name on
the hub, which is then downloaded. The first column of pictures and the first of class labels are
taken. A missing validation or test split is cut from the training items, and so is one that has
no labels, as the test split of some challenges.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vqtrain.data.adapters import pictures
from vqtrain.data.adapters.folder import ALIASES, UNNAMED
from vqtrain.data.adapters.source import Source, dataset_of
from vqtrain.data.config import DataConfig
from vqtrain.data.dataset import Dataset
from vqtrain.models.tokenizer import Signal, Size


def load_hub(name: str, config: DataConfig, seed: int) -> Dataset:
    """The data set.

    Args:
        name: NAME.
        config: `size` (two lengths), `channels`, `augment` and `held_out_share`.
        seed: decides the training crops.

    Raises:
        ModuleNotFoundError: if `datasets` is not installed.
        ValueError: if `size` has not two lengths, there are no training items, or no column of
            pictures.
    """
    title = f"hf:{name}"
    if len(config.size) != 2:
        raise ValueError(f"data.size must be two lengths for {title}, got {config.size}")
    parts = _parts(name, title)
    features = parts["train"].features
    picture = _column(features, "Image")
    if picture is None:
        kinds = {column: type(feature).__name__ for column, feature in features.items()}
        raise ValueError(f"{title} must have a column of pictures, got {kinds}")
    label = _column(features, "ClassLabel")
    class_names = (UNNAMED,) if label is None else tuple(features[label].names)
    labels = {
        split: [0] * len(part) if label is None else list(part[label])
        for split, part in parts.items()
    }
    for split in ("validation", "test"):
        if split in parts and min(labels[split], default=-1) < 0:
            del parts[split], labels[split]

    where = [(split, row) for split, part in parts.items() for row in range(len(part))]
    signal = Signal(
        size=config.size, channels=config.channels, levels=256, num_labels=len(class_names)
    )

    def read(number: int, least: Size) -> Tensor:
        split, row = where[number]
        return pictures.levels_of(parts[split][row][picture], signal.channels, least)

    source = Source(
        title=title,
        names=[f"{split}/{row}" for split, row in where],
        splits=[split for split, _ in where],
        labels=torch.tensor([y for split in parts for y in labels[split]], dtype=torch.int64),
        class_names=class_names,
        read=read,
        signal=signal,
        mirrored=True,
    )
    return dataset_of(source, config, seed)


def _parts(name: str, title: str) -> dict[str, Any]:
    """The splits of a data set, under our names."""
    try:
        import datasets  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{title} needs datasets: pip install 'vqkernels[hub]'"
        ) from error
    saved = any((Path(name) / file).is_file() for file in ("dataset_dict.json", "state.json"))
    found = datasets.load_from_disk(name) if saved else datasets.load_dataset(name)
    if isinstance(found, datasets.Dataset):
        return {"train": found}
    parts = {ALIASES[split]: part for split, part in found.items() if split in ALIASES}
    if "train" not in parts:
        raise ValueError(f"{title} must have a split 'train', got {', '.join(found)}")
    return parts


def _column(features: Any, kind: str) -> str | None:
    """The first column of a type of `datasets`."""
    return next((name for name, f in features.items() if type(f).__name__ == kind), None)
