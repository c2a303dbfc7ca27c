"""Pictures of any size and mode to levels."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vqtrain.models.tokenizer import Size


def levels_of(picture: Image.Image, channels: int, least: Size) -> Tensor:
    """Resizes a picture so that it just covers `least`, which keeps its proportions.

    Args:
        picture: of any mode; transparency is dropped, 16-bit grey keeps its upper half.
        channels: 3 for colour, 1 for grey.
        least: height and width to cover.

    Returns:
        `(channels, H, W)` uint8, one of H and W as in `least`, the other at least that.
    """
    if picture.mode.startswith("I"):
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    picture = picture.convert("RGB" if channels == 3 else "L")
    scale = max(least[0] / picture.height, least[1] / picture.width)
    height, width = (
        max(length, round(old * scale))
        for length, old in zip(least, (picture.height, picture.width), strict=True)
    )
    if (height, width) != (picture.height, picture.width):
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(picture, dtype=np.uint8))
    return pixels.view(height, width, channels).permute(2, 0, 1)
