"""Bundled data, nothing downloads: `digits` has committed splits, `photos` are single pictures."""

from vqtrain.data.digits import load_digits_dataset
from vqtrain.data.images import ImageDataset, ImageSet, batches

__all__ = ["ImageDataset", "ImageSet", "batches", "load_digits_dataset"]
