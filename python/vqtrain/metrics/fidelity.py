"""How close reconstructions are: PSNR over all entries and per group, and SSIM."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

GAUSSIAN_WINDOW = 11  # entries along each axis, of Wang et al. 2004
SMALL_WINDOW = 7


class Fidelity(NamedTuple):
    """Reconstructions against originals.

    Attributes:
        psnr: dB, 10 log10(peak^2 / mean squared error over all entries of all items).
        psnr_by_group: the same over the items of each named group.
        ssim: mean structural similarity; None for sound and for items smaller than its window.
        ssim_window: how it was averaged.
    """

    psnr: float
    psnr_by_group: dict[str, float]
    ssim: float | None
    ssim_window: str | None


def fidelity(
    decoded: Tensor, x: Tensor, levels: int, groups: Mapping[str, Tensor] | None = None
) -> Fidelity:
    """Compares decoder means with the items they came from.

    SSIM is that of Wang et al. 2004 with a Gaussian window of 11 entries a side (sigma 1.5), or,
    where an axis is shorter than two such windows, with a uniform window of 7.

    Args:
        decoded: `(N, C, *size)` floating, levels in `[0, levels - 1]`.
        x: `(N, C, *size)` integer levels.
        levels: number of levels; the peak is `levels - 1`.
        groups: `(N,)` bool masks by name, such as the photograph a crop is of.
    """
    peak = float(levels - 1)
    originals = x.float()
    similarity, window = _ssim(decoded, originals, peak)
    return Fidelity(
        psnr=psnr(decoded, originals, peak),
        psnr_by_group={
            name: psnr(decoded[mask], originals[mask], peak)
            for name, mask in (groups or {}).items()
        },
        ssim=similarity,
        ssim_window=window,
    )


def psnr(decoded: Tensor, originals: Tensor, peak: float) -> float:
    """Over all entries at once, in dB; a mean of the items' PSNR would be led by the good ones."""
    return peak_signal_noise_ratio(decoded.float(), originals, data_range=(0.0, peak)).item()


def _ssim(decoded: Tensor, originals: Tensor, peak: float) -> tuple[float | None, str | None]:
    size = originals.shape[2:]
    if len(size) < 2 or min(size) <= SMALL_WINDOW:
        return None, None
    gaussian = min(size) >= 2 * GAUSSIAN_WINDOW
    total = 0.0
    # In parts: the five filtered maps of a whole split of videos do not fit beside it.
    for a, b in zip(decoded.split(256), originals.split(256), strict=True):
        similarity = structural_similarity_index_measure(
            a.float(),
            b,
            gaussian_kernel=gaussian,
            kernel_size=SMALL_WINDOW,
            data_range=(0.0, peak),
            reduction="sum",
        )
        total += torch.as_tensor(similarity).item()
    window = "Gaussian, 11 a side" if gaussian else f"uniform, {SMALL_WINDOW} a side"
    return total / len(originals), window
