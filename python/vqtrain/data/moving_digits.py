"""Video: an 8x8 handwritten digit that moves and bounces through 8 frames of 16x16 pixels.

Each split moves the digits of its own rows of the committed split, so a held-out video shows a
digit that training has never seen. Positions are whole pixels: the 17 grey levels are kept.
"""

from functools import partial

import torch
from torch import Tensor

from vqtrain.data import digits
from vqtrain.data.config import DataConfig
from vqtrain.data.dataset import Dataset, Split
from vqtrain.data.procedural import Recipe, procedural_dataset
from vqtrain.models.tokenizer import Signal

FRAMES, SIZE, DIGIT = 8, 16, 8
SPEEDS = 5  # -2 .. 2 pixels a frame, on each axis


def load_moving_digits(config: DataConfig, seed: int) -> Dataset:
    """The data set; see `procedural_dataset`."""
    source = digits.load_digits_dataset(config.split)
    signal = Signal(
        size=(FRAMES, SIZE, SIZE),
        channels=1,
        levels=digits.LEVELS,
        num_labels=len(digits.CLASSES),
    )
    pools = {
        "train": source.clean_train(),
        "validation": source.validation,
        "test": source.test,
    }
    recipes = {
        split: Recipe(partial(render, pool), 5, signal, digits.CLASSES)
        for split, pool in pools.items()
    }
    return procedural_dataset(recipes, config, seed)


def render(pool: Split, labels: Tensor, u: Tensor) -> Tensor:
    """Moves digits.

    Args:
        pool: digits to choose from.
        labels: `(n,)` int64 classes.
        u: `(n, 5)` uniforms: which digit of its class, x, y, and speed along both.

    Returns:
        `(n, 1, 8, 16, 16)` uint8.
    """
    order = pool.labels.argsort(stable=True)
    counts = torch.bincount(pool.labels, minlength=len(digits.CLASSES))
    first = counts.cumsum(0) - counts
    chosen = order[first[labels] + (u[:, 0] * counts[labels]).long()]
    room = SIZE - DIGIT
    start = (u[:, 1:3] * (room + 1)).long()
    speed = (u[:, 3:5] * SPEEDS).long() - SPEEDS // 2
    path = start[:, None] + speed[:, None] * torch.arange(FRAMES)[:, None]
    # A straight line, folded at both walls.
    corner = room - (path.remainder(2 * room) - room).abs()
    video = torch.zeros(len(labels), FRAMES, SIZE, SIZE, dtype=torch.uint8)
    item = torch.arange(len(labels))[:, None, None, None]
    frame = torch.arange(FRAMES)[:, None, None]
    across = corner[:, :, 0, None, None] + torch.arange(DIGIT)
    down = corner[:, :, 1, None, None] + torch.arange(DIGIT)[:, None]
    video[item, frame, down, across] = pool.x[chosen]
    return video[:, None]
