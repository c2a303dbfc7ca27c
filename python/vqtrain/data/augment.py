"""Flagged augmentation: warped copies of training images that carry their own labels.

A model trained on warped digits without being told spends probability on warps that never occur
in the test set. With a label of their own (class + number of classes) they teach shape without
moving the distribution of the clean classes: about 0.1 bits/dim on the digits.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from vqtrain.data.dataset import Split, StoredTrainSet

# Ranges that leave an 8x8 digit readable.
ROTATION = math.radians(15)
LOG_SCALE = math.log(1.15)
SHEAR = 0.2
SHIFT_PIXELS = 0.6


def with_warped_copies(
    clean: Split, copies: int, num_classes: int, levels: int, seed: int
) -> StoredTrainSet:
    """A training set whose draw 0 is the clean image and whose further draws are warped copies.

    Args:
        clean: training images; never pass validation or test images.
        copies: warped copies of each image, at least 0; their labels are `label + num_classes`.
        num_classes: number of clean classes.
        levels: number of grey levels, to which the interpolated image is rounded.
        seed: decides all warps.

    Returns:
        `1 + copies` draws of every image.

    Raises:
        ValueError: if `copies` is negative.
    """
    if copies < 0:
        raise ValueError(f"copies must be at least 0, got {copies}")
    generator = torch.Generator().manual_seed(seed)
    images = [clean.x]
    for _ in range(copies):
        images.append(warp(clean.x, levels, generator))
    items = Split(
        x=torch.cat(images),
        labels=torch.cat([clean.labels] + [clean.labels + num_classes] * copies),
        rows=clean.rows.repeat(copies + 1),
    )
    return StoredTrainSet(items, draws=copies + 1)


def warp(images: Tensor, levels: int, generator: torch.Generator) -> Tensor:
    """Rotates, scales, shears and shifts each image at random, by bilinear interpolation.

    Args:
        images: `(N, C, H, W)` uint8 grey levels.
        levels: number of grey levels.
        generator: CPU generator.

    Returns:
        `(N, C, H, W)` uint8, background 0.
    """
    n, _, height, width = images.shape

    def uniform(limit: float, *shape: int) -> Tensor:
        return (torch.rand(n, *shape, generator=generator) * 2 - 1) * limit

    angle, shear = uniform(ROTATION), uniform(SHEAR)
    scale = uniform(LOG_SCALE, 2).exp()
    # Pixels to the units of affine_grid, whose image spans [-1, 1].
    shift = uniform(SHIFT_PIXELS, 2) * 2 / torch.tensor([width, height])
    cos, sin = angle.cos(), angle.sin()
    rotation = torch.stack((cos, -sin, sin, cos), dim=1).view(n, 2, 2)
    stretch = torch.diag_embed(scale)
    stretch[:, 0, 1] = shear
    theta = torch.cat((rotation @ stretch, shift[:, :, None]), dim=2)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    warped = F.grid_sample(images.float(), grid, mode="bilinear", align_corners=False)
    return warped.round().clamp(0, levels - 1).to(torch.uint8)
