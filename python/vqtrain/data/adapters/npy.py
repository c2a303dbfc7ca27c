"""`npy:FILE`: an array of items of one size, memory-mapped.

FILE holds uint8 levels `(N, C, *size)` or `(N, *size)`, which is one channel; FILE-labels.npy
(`digits.npy`: `digits-labels.npy`), if there is one, a class from 0 on for each item. A hash of
the row decides the split.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vqtrain.data.adapters.folder import UNNAMED
from vqtrain.data.adapters.source import members_of
from vqtrain.data.config import DataConfig
from vqtrain.data.dataset import Dataset, Split, check_within
from vqtrain.models.tokenizer import Signal


@dataclass(frozen=True)
class MappedTrainSet:
    """Rows of an array on disk, as they are.

    Args:
        array: `(N, C, *size)` uint8.
        labels: `(N,)` int64.
        numbers: `(size,)` int64, the rows of the array in this set.
    """

    array: np.ndarray
    labels: Tensor
    numbers: Tensor
    draws: int = 1

    @property
    def size(self) -> int:
        return len(self.numbers)

    def batch(self, rows: Tensor, draws: Tensor) -> Split:
        """See `TrainSet.batch`.

        Raises:
            ValueError: if a row or a draw is out of range.
        """
        check_within(rows, draws, self.size, self.draws)
        numbers = self.numbers[rows]
        return Split(torch.from_numpy(self.array[numbers.numpy()]), self.labels[numbers], numbers)


def load_npy(file: str, config: DataConfig, seed: int) -> Dataset:
    """The data set.

    Args:
        file: FILE.
        config: `levels` and `held_out_share`; `size` says which axes are an item's where an axis
            of length 1 or 3 could be channels or not.
        seed: decides nothing, since there is one draw of a row.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the array or the labels are of another dtype or shape, or an entry is not a
            level.
    """
    path, title = Path(file), f"npy:{file}"
    if not path.is_file():
        raise FileNotFoundError(f"data.name must name a file, got {title}")
    array = _with_channels(_array(path, title), title, config)
    labels = _labels(path.with_name(f"{path.stem}-labels.npy"), len(array))
    members = members_of(title, list(map(str, range(len(array)))), (), config)
    classes = int(labels.max()) + 1
    signal = Signal(
        size=array.shape[2:],
        channels=array.shape[1],
        levels=config.levels,
        num_labels=classes,
    )
    sets = {split: MappedTrainSet(array, labels, rows) for split, rows in members.items()}
    return Dataset.of(sets, signal, tuple(map(str, range(classes))) if classes > 1 else (UNNAMED,))


def _array(path: Path, title: str) -> np.ndarray:
    """The array of a file, memory-mapped."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{title} must be a file of numbers, got: {error}") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{title} must be a file of one array, got an archive of {array.files}")
    return array


def _with_channels(array: np.ndarray, title: str, config: DataConfig) -> np.ndarray:
    """Checks an array and gives it an axis of channels if it has none."""
    if array.dtype != np.uint8:
        raise ValueError(f"{title} must be uint8, got {array.dtype}")
    shape = array.shape[1:]
    if config.size:
        channelled = shape[1:] == config.size
        fits = channelled or shape == config.size
    else:
        channelled = len(shape) > 1 and shape[0] in (1, 3)
        fits = 1 <= len(shape) - channelled <= 3
    if not fits:
        size = ", ".join(map(str, config.size)) or "*size"
        raise ValueError(
            f"{title} must have shape (N, C, {size}) or (N, {size}), got {array.shape}"
        )
    if len(array) and array.max() >= config.levels:
        raise ValueError(
            f"{title} must hold levels below data.levels {config.levels}, got {array.max()}"
        )
    return array if channelled else array[:, None]


def _labels(path: Path, items: int) -> Tensor:
    """Labels of a file, or zeros where there is none."""
    if not path.is_file():
        return torch.zeros(items, dtype=torch.int64)
    labels = _array(path, str(path))
    if labels.shape != (items,) or labels.dtype.kind not in "iu" or labels.min(initial=0) < 0:
        raise ValueError(
            f"{path} must hold {items} integers from 0 on, got {labels.dtype} {labels.shape}"
        )
    return torch.from_numpy(labels.astype(np.int64))
