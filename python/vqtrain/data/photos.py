"""Photographs inside the scikit-learn and scikit-image wheels: real images, no download.

Raw patches of photographs are the hard case of nearest-code search: many nearly equal distances,
where reduced precision picks the wrong code in more than half of the rows.
"""

from collections.abc import Callable, Iterable

import numpy as np
import skimage.data
import torch
from sklearn.datasets import load_sample_image
from torch import Tensor

# Only pictures that need neither network nor pooch; `cat` is left out because it is chelsea again.
_LOADERS: dict[str, Callable[[], np.ndarray]] = {
    "china": lambda: load_sample_image("china.jpg"),
    "flower": lambda: load_sample_image("flower.jpg"),
    "astronaut": skimage.data.astronaut,
    "chelsea": skimage.data.chelsea,
    "coffee": skimage.data.coffee,
    "hubble_deep_field": skimage.data.hubble_deep_field,
    "immunohistochemistry": skimage.data.immunohistochemistry,
    "motorcycle": lambda: skimage.data.stereo_motorcycle()[0],
    "retina": skimage.data.retina,
    "rocket": skimage.data.rocket,
    "brick": skimage.data.brick,
    "camera": skimage.data.camera,
    "coins": skimage.data.coins,
    "grass": skimage.data.grass,
    "gravel": skimage.data.gravel,
    "moon": skimage.data.moon,
}
NAMES = tuple(_LOADERS)


def load(names: Iterable[str] = NAMES) -> dict[str, Tensor]:
    """Loads photographs by name.

    Args:
        names: any of `NAMES`.

    Returns:
        Name to `(H, W, C)` float32 in [0, 1]; C is 3 for colour and 1 for grey pictures.

    Raises:
        ValueError: if a name is unknown.
    """
    pictures = {}
    for name in names:
        if name not in _LOADERS:
            raise ValueError(f"names must be among {', '.join(NAMES)}, got {name!r}")
        pixels = np.asarray(_LOADERS[name](), dtype=np.float32) / 255
        picture = torch.from_numpy(pixels)
        pictures[name] = picture if picture.ndim == 3 else picture[:, :, None]
    return pictures


def patches(image: Tensor, size: int, stride: int | None = None) -> Tensor:
    """Cuts an image into square patches, row by row; pixels that do not fill a patch are left out.

    Args:
        image: `(H, W, C)`.
        size: side of a patch in pixels.
        stride: distance between patches; `size` by default, which makes them disjoint.

    Returns:
        `(N, size * size * C)`, each row in the order (row, column, channel), contiguous.

    Raises:
        ValueError: if the image is not three-dimensional, or a patch does not fit into it.
    """
    if image.ndim != 3:
        raise ValueError(f"image must have shape (H, W, C), got {tuple(image.shape)}")
    stride = size if stride is None else stride
    if not 0 < size <= min(image.shape[:2]):
        raise ValueError(f"size must be between 1 and {min(image.shape[:2])}, got {size}")
    if stride < 1:
        raise ValueError(f"stride must be at least 1, got {stride}")
    # unfold appends each window's dimension: (rows, columns, C, size, size).
    windows = image.unfold(0, size, stride).unfold(1, size, stride)
    return windows.permute(0, 1, 3, 4, 2).reshape(-1, size * size * image.shape[2])
