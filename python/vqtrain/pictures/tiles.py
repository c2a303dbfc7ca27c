"""Signals to look at: pictures as they are, videos as strips of frames, sound as waves.

Grey pictures of few levels are drawings: high levels are ink. With 256 levels they are
photographs: high levels are light.
"""

import numpy as np
import torch
from torch import Tensor

GAP = 1  # blank pixels between the frames of a strip
PHOTOGRAPH_LEVELS = 256


def filmstrip(videos: Tensor) -> Tensor:
    """`(..., C, T, H, W)` to `(..., C, H, T * (W + 1) - 1)` float, frames from left to right.

    The gap between frames is NaN, which `montage` leaves blank.
    """
    frames = videos.movedim(-3, -2).float()  # (..., C, H, T, W)
    gap = frames.new_full((*frames.shape[:-1], GAP), torch.nan)
    return torch.cat((frames, gap), dim=-1).flatten(-2)[..., :-GAP]


def montage(images: Tensor, levels: int, gap: int = 1) -> np.ndarray:
    """Tiles images with blank pixels between them.

    Args:
        images: `(rows, columns, C, H, W)` levels, C 1 or 3; NaN is blank.
        levels: number of levels.
        gap: blank pixels between images.

    Returns:
        `(rows * (H + gap) - gap, columns * (W + gap) - gap, 3)` float in [0, 1], white where
        blank.
    """
    rows, columns, channels, height, width = images.shape
    if channels not in (1, 3):
        raise ValueError(f"images must have 1 or 3 channels, got {channels}")
    light = images.double().clamp(0, levels - 1) / (levels - 1)
    if channels == 1 and levels < PHOTOGRAPH_LEVELS:
        light = 1 - light
    page = torch.ones(rows, columns, 3, height + gap, width + gap, dtype=torch.float64)
    page[..., :height, :width] = light.nan_to_num(1.0)
    tiled = page.permute(0, 3, 1, 4, 2).reshape(rows * (height + gap), columns * (width + gap), 3)
    return tiled[: len(tiled) - gap, : tiled.shape[1] - gap].numpy()


def envelope(sound: Tensor, levels: int, columns: int) -> tuple[Tensor, Tensor]:
    """Lowest and highest value of each of `columns` stretches, in [-1, 1].

    Args:
        sound: `(..., T)` levels.
        levels: number of levels; the middle one is silence.
        columns: stretches, at most T; what does not fill one is left out.

    Returns:
        Two `(..., columns)` float tensors.
    """
    length = sound.shape[-1] // columns
    scaled = sound[..., : length * columns].float() * (2 / (levels - 1)) - 1
    stretches = scaled.unflatten(-1, (columns, length))
    return stretches.amin(-1), stretches.amax(-1)
