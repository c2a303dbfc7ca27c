"""Data sets: bundled ones, procedural ones and adapters. Nothing downloads."""

from vqtrain.data.config import DataConfig, provenance
from vqtrain.data.dataset import Dataset, Split, StoredTrainSet, TrainSet
from vqtrain.data.digits import load_digits_dataset
from vqtrain.data.images import ImageDataset, ImageSet, batches

__all__ = [
    "DataConfig",
    "Dataset",
    "ImageDataset",
    "ImageSet",
    "Split",
    "StoredTrainSet",
    "TrainSet",
    "batches",
    "load_dataset",
    "load_digits_dataset",
    "provenance",
]


def load_dataset(config: DataConfig, seed: int) -> Dataset:
    """The data of a run; every stage of the run sees the same items.

    Args:
        config: names the data set.
        seed: decides the draws of the training set.

    Raises:
        ValueError: if there is no such data set.
    """
    if config.name == "digits":
        return load_digits_dataset(config.split, config.warped_copies, seed)
    raise ValueError(f"data.name must be 'digits', got {config.name!r}")
