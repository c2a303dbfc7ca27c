"""`folder:DIR`: pictures or sounds in sub-folders, one for each class.

    DIR/cat/1.png  DIR/dog/a/7.jpg              split by a hash of each file's path below DIR
    DIR/train/cat/1.png  DIR/test/cat/9.png     split as it stands; a missing validation or test
                                                split is cut from `train` by the hash

Files that are not in a sub-folder make one class. Links to folders are followed. `data.size` has
two lengths for pictures and one for sounds.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from vqtrain.data.adapters import pictures, sounds
from vqtrain.data.adapters.source import Source, dataset_of
from vqtrain.data.config import DataConfig
from vqtrain.data.dataset import Dataset
from vqtrain.models.tokenizer import Signal, Size

PICTURES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
SOUNDS = (".flac", ".mp3", ".ogg", ".wav")
# Names that a folder of a split may have.
ALIASES = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
UNNAMED = "item"


def load_folder(folder: str, config: DataConfig, seed: int) -> Dataset:
    """The data set.

    Args:
        folder: DIR.
        config: `size`, `channels`, `sample_rate`, `augment` and `held_out_share`.
        seed: decides the training crops.

    Raises:
        NotADirectoryError: if there is no such folder.
        ValueError: if `size` has neither one nor two lengths, or the folder has no such files.
        ModuleNotFoundError: if it has sounds, and soundfile is not installed.
    """
    root, title = Path(folder), f"folder:{folder}"
    if not root.is_dir():
        raise NotADirectoryError(f"data.name must name a folder, got {title}")
    if len(config.size) not in (1, 2):
        raise ValueError(
            f"data.size must be two lengths for a folder of pictures, or one for a folder of "
            f"sounds, got {config.size}"
        )
    sound = len(config.size) == 1
    if sound:
        sounds.import_soundfile()
    suffixes = SOUNDS if sound else PICTURES
    paths = sorted(p for p in _files(root) if p.suffix.lower() in suffixes and p.is_file())
    if not paths:
        raise ValueError(f"{title} must hold files {', '.join(suffixes)}, got none")

    presplit = any((root / name).is_dir() for name in ALIASES if ALIASES[name] == "train")
    places = [path.relative_to(root).parts for path in paths]
    splits = []
    if presplit:
        strangers = sorted({place[0] for place in places} - set(ALIASES))
        if strangers:
            raise ValueError(
                f"{title} must hold nothing beside its splits, which are among "
                f"{', '.join(ALIASES)}, got {strangers[0]!r}"
            )
        splits = [ALIASES[place[0]] for place in places]
    found = [place[1:] if presplit else place for place in places]
    classes = [place[0] if len(place) > 1 else UNNAMED for place in found]
    class_names = tuple(sorted(set(classes)))
    signal = Signal(
        size=config.size,
        channels=1 if sound else config.channels,
        levels=256,
        num_labels=len(class_names),
    )

    def read(number: int, least: Size) -> Tensor:
        if sound:
            return sounds.levels_of(paths[number], config.sample_rate, least[0])
        return _picture(paths[number], signal.channels, least)

    source = Source(
        title=title,
        names=["/".join(place) for place in places],
        splits=splits,
        labels=torch.tensor([class_names.index(name) for name in classes]),
        class_names=class_names,
        read=read,
        signal=signal,
        mirrored=not sound,
    )
    return dataset_of(source, config, seed)


def _files(root: Path) -> Iterator[Path]:
    """What lies below a folder and the folders that it links to, once each: links may go round."""
    seen = set()
    for folder, inner, names in os.walk(root, followlinks=True):
        inner.sort()
        place = os.path.realpath(folder)
        if place in seen:
            inner.clear()
            continue
        seen.add(place)
        yield from (Path(folder, name) for name in names)


def _picture(path: Path, channels: int, least: Size) -> Tensor:
    try:
        with Image.open(path) as picture:
            return pictures.levels_of(picture, channels, least)
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path} must be a picture, got: {error}") from error
