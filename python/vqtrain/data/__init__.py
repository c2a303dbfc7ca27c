"""Data sets: bundled ones, procedural ones and adapters. Nothing downloads."""

from collections.abc import Callable

from vqtrain.data.adapters import load_folder, load_hub, load_npy
from vqtrain.data.config import DataConfig, provenance
from vqtrain.data.dataset import Dataset, Split, StoredTrainSet, TrainSet
from vqtrain.data.digits import load_digits_dataset
from vqtrain.data.moving_digits import load_moving_digits
from vqtrain.data.photo_crops import load_photos
from vqtrain.data.shapes import load_shapes
from vqtrain.data.tones import load_tones

__all__ = [
    "DataConfig",
    "Dataset",
    "Split",
    "StoredTrainSet",
    "TrainSet",
    "load_dataset",
    "load_digits_dataset",
    "provenance",
]


# Every bundled data set, by name: DataConfig and seed to Dataset.
BUNDLED: dict[str, Callable[[DataConfig, int], Dataset]] = {
    "digits": lambda config, seed: load_digits_dataset(config.split, config.warped_copies, seed),
    "photos": load_photos,
    "shapes": load_shapes,
    "tones": load_tones,
    "moving-digits": load_moving_digits,
}

# What stands before the colon: the rest of the name, DataConfig and seed to Dataset.
ADAPTERS = {"folder": load_folder, "npy": load_npy, "hf": load_hub}


def load_dataset(config: DataConfig, seed: int) -> Dataset:
    """The data of a run; every stage of the run sees the same items.

    Args:
        config: names the data set.
        seed: decides the draws of the training set.

    Raises:
        ValueError: if there is no such data set, or `config` does not fit it; adapters raise more
            (`vqtrain.data.adapters`).
    """
    kind, colon, place = config.name.partition(":")
    if colon and kind in ADAPTERS:
        return ADAPTERS[kind](place, config, seed)
    if config.name not in BUNDLED:
        names = [*BUNDLED, *(f"{kind}:..." for kind in ADAPTERS)]
        raise ValueError(f"data.name must be among {', '.join(names)}, got {config.name!r}")
    return BUNDLED[config.name](config, seed)
