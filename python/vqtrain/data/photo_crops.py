"""Colour crops of the bundled photographs, split by picture: no part of a test one is trained on.

    test          disjoint crops of chelsea, china and rocket
    validation    disjoint crops of coffee
    train         random crops of all other pictures, the grey ones as colour

Rows are numbers of pictures in `photos.NAMES`, so a figure can be given for each of them.
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from vqtrain.data import photos
from vqtrain.data.config import DataConfig
from vqtrain.data.counter import uniforms
from vqtrain.data.dataset import Dataset, Split, check_within
from vqtrain.data.procedural import STREAMS, between
from vqtrain.models.tokenizer import Signal

LEVELS, SIZE = 256, (32, 32)
TEST, VALIDATION = ("chelsea", "china", "rocket"), ("coffee",)
TRAIN = tuple(name for name in photos.NAMES if name not in TEST + VALIDATION)
FACTORS = 13  # two for the place, two for flips, one for whether to recolour, eight for how
_ORDERS = torch.tensor(list(itertools.permutations(range(3))))


def load_photos(config: DataConfig, seed: int) -> Dataset:
    """The data set, without classes.

    Args:
        config: `size` (two lengths, 32x32 by default), `train_size` and `augment`.
        seed: decides the training crops.

    Raises:
        ValueError: if `size` has not two lengths, or a picture is smaller.
    """
    size = config.size or SIZE
    if len(size) != 2:
        raise ValueError(f"data.size must be two lengths for photos, got {size}")
    height, width = size
    return Dataset(
        train=PhotoCrops(
            tuple(_pixels(name) for name in TRAIN),
            tuple(photos.NAMES.index(name) for name in TRAIN),
            height,
            width,
            config.train_size,
            seed,
            config.augment,
        ),
        validation=_disjoint(VALIDATION, height, width),
        test=_disjoint(TEST, height, width),
        signal=Signal(size=size, channels=3, levels=LEVELS),
        class_names=("photo",),
    )


@dataclass(frozen=True)
class PhotoCrops:
    """Random crops: each draw of a row is another place in the row's picture.

    Args:
        pictures: `(3, H, W)` uint8 each.
        numbers: of the pictures, for `Split.rows`.
        height: of a crop.
        width: of a crop.
        size: rows; row r belongs to picture r modulo their number.
        seed: decides the crops.
        augment: whether draws from 1 on are flipped, and half of them coloured differently.
    """

    pictures: tuple[Tensor, ...]
    numbers: tuple[int, ...]
    height: int
    width: int
    size: int
    seed: int
    augment: bool = True
    draws: None = None

    def batch(self, rows: Tensor, draws: Tensor) -> Split:
        """See `TrainSet.batch`.

        Raises:
            ValueError: if a row or a draw is out of range.
        """
        check_within(rows, draws, self.size, self.draws)
        which = rows % len(self.pictures)
        u = uniforms((STREAMS["train"], self.seed), rows, draws, FACTORS)
        x = torch.zeros(len(rows), 3, self.height, self.width, dtype=torch.uint8)
        for item, (picture, place) in enumerate(zip(which.tolist(), u.tolist(), strict=True)):
            x[item] = self._crop(picture, *place[:2])
        if self.augment:
            changed = torch.where(_of_each(u[:, 4] < 0.5), recoloured(x, u[:, 5:]), x)
            x = torch.where(_of_each(draws == 0), x, flipped(changed, u[:, 2:4]))
        return Split(x, torch.zeros_like(rows), torch.tensor(self.numbers)[which])

    def _crop(self, picture: int, down: float, across: float) -> Tensor:
        pixels = self.pictures[picture]
        top = int(down * (pixels.shape[1] - self.height + 1))
        left = int(across * (pixels.shape[2] - self.width + 1))
        return pixels[:, top : top + self.height, left : left + self.width]


def flipped(x: Tensor, u: Tensor) -> Tensor:
    """Mirrors half of the items left to right, and half of them upside down."""
    x = torch.where(_of_each(u[:, 0] < 0.5), x.flip(-1), x)
    return torch.where(_of_each(u[:, 1] < 0.5), x.flip(-2), x)


def recoloured(x: Tensor, u: Tensor) -> Tensor:
    """Other colours for the same forms: channels change places, brightness and contrast.

    A dozen photographs hold few colours, and a codebook trained on them alone gives every blue the
    blue that it knows.

    Args:
        x: `(n, 3, H, W)` uint8 levels.
        u: `(n, 8)` uniforms.
    """
    order = _ORDERS[(u[:, 0] * len(_ORDERS)).long()]
    x = x.gather(1, order[:, :, None, None].expand_as(x)).float()
    middle = x.mean((1, 2, 3), keepdim=True)
    contrast = between(u[:, 1], -0.5, 0.3).exp().float()[:, None, None, None]
    shift = between(u[:, 2:5], -40, 40).float()[:, :, None, None]
    gain = between(u[:, 5:8], -0.25, 0.25).exp().float()[:, :, None, None]
    x = ((x - middle) * contrast + middle) * gain + shift
    return x.round().clamp(0, LEVELS - 1).to(torch.uint8)


def _of_each(chosen: Tensor) -> Tensor:
    """`(n,)`, one for each picture, in a shape that broadcasts over its pixels."""
    return chosen[:, None, None, None]


def _pixels(name: str) -> Tensor:
    """`(3, H, W)` uint8; a grey picture has three equal channels."""
    picture = (photos.load([name])[name] * (LEVELS - 1)).round().to(torch.uint8)
    return picture.expand(-1, -1, 3).permute(2, 0, 1).contiguous()


def _disjoint(names: tuple[str, ...], height: int, width: int) -> Split:
    """Every whole crop of a grid over each picture."""
    crops, rows = [], []
    for name in names:
        pixels = _pixels(name)
        if height > pixels.shape[1] or width > pixels.shape[2]:
            raise ValueError(
                f"data.size must be at most {tuple(pixels.shape[1:])}, the size of {name}, got "
                f"{(height, width)}"
            )
        windows = pixels.unfold(1, height, height).unfold(2, width, width)
        crops.append(windows.permute(1, 2, 0, 3, 4).flatten(0, 1))
        rows += [photos.NAMES.index(name)] * len(crops[-1])
    return Split(torch.cat(crops), torch.zeros(len(rows), dtype=torch.int64), torch.tensor(rows))
