"""Memorisation: are samples closer to the training items than new real items are?

For every sample the distance to its nearest training item, beside the same for held-out items and
for training items among themselves. Samples that sit much closer than held-out items do, or
repeat a training item, are memorised. Use items drawn from the decoder, never decoder means:
a mean is smooth, and so closer to training items than real ones are, without any memory.
"""

from typing import NamedTuple

import torch
from torch import Tensor

import vqkernels as vq

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


class Neighbours(NamedTuple):
    """Distances to the nearest training item, Euclidean over entries scaled to [0, 1].

    Attributes:
        quantiles: of `QUANTILES`, for `samples`, `held_out` and `train` (to another one).
        duplicates_of_train: share of samples equal to a training item.
        duplicates_among_samples: share of samples equal to an earlier sample.
        train_items: training items compared with.
    """

    quantiles: dict[str, list[float]]
    duplicates_of_train: float
    duplicates_among_samples: float
    train_items: int


def neighbours(samples: Tensor, held_out: Tensor, train: Tensor, levels: int) -> Neighbours:
    """Compares whole distributions of distances.

    Args:
        samples: `(N, C, *size)` integer levels, drawn from the decoder.
        held_out: `(M, C, *size)` real items that no model saw.
        train: `(T, C, *size)` clean training items, T at least 2.
        levels: number of levels.
    """
    flat = {
        name: x.flatten(1).float() / (levels - 1)
        for name, x in (("samples", samples), ("held_out", held_out), ("train", train))
    }
    nearest = {
        name: nearest_distances(rows, flat["train"], skip_self=name == "train")
        for name, rows in flat.items()
    }
    wanted = torch.tensor(QUANTILES, dtype=torch.float64)
    known = {item.tobytes() for item in train.to(torch.uint8).flatten(1).numpy()}
    drawn = [item.tobytes() for item in samples.to(torch.uint8).flatten(1).numpy()]
    return Neighbours(
        quantiles={name: d.double().quantile(wanted).tolist() for name, d in nearest.items()},
        duplicates_of_train=sum(item in known for item in drawn) / len(drawn),
        duplicates_among_samples=1 - len(set(drawn)) / len(drawn),
        train_items=len(train),
    )


def nearest_distances(rows: Tensor, train: Tensor, skip_self: bool = False) -> Tensor:
    """`(N,)` distance of each `(N, D)` row to its nearest `(T, D)` training row, exactly.

    With `skip_self` the rows are the training rows, and each is compared with the others.
    """
    if skip_self:  # the nearest is the row itself, or one that equals it
        return vq.nearest_codes(rows, train, 2).distances[:, 1].sqrt()
    return vq.nearest_code(rows, train).distances.sqrt()
