"""Features of a data set's own making: what its classifier and its distances look at.

Small pictures are taken pixel by pixel. Sound is taken as log spectra, since a tone's phase says
nothing, and video as the mean magnitude of its frames' spectra, since what moves is the same
wherever it is. All but small pictures are then put on the leading principal components of the
training split, so no network is trained and nothing is downloaded.
"""

from typing import NamedTuple

import torch
from sklearn.decomposition import PCA
from torch import Tensor

PIXELS = 1024  # entries of an item that a classifier still takes as they are
COMPONENTS = 64
FRAMES = 8  # stretches of sound whose spectra are taken apart
FLOOR = 1e-3  # of a spectrum, whose logarithm would else be about silence


class Features(NamedTuple):
    """A fitted map from items to features.

    Attributes:
        name: what it does, for the page.
        levels: of the items.
        components: principal components, or None where the entries are taken as they are.
    """

    name: str
    levels: int
    components: PCA | None

    def __call__(self, x: Tensor) -> Tensor:
        """`(N, C, *size)` levels, integer or floating, to `(N, d)` float32."""
        raw = _raw(x, self.levels)
        if self.components is None:
            return raw
        return torch.from_numpy(self.components.transform(raw.numpy())).float()


def classifier_features(train: Tensor, levels: int) -> Features:
    """What a classifier reads: pixels of small pictures, else 64 principal components.

    Args:
        train: `(N, C, *size)` integer levels of the clean training items.
        levels: number of levels.
    """
    if train.ndim == 4 and train[0].numel() <= PIXELS:
        return Features(_raw_name(train), levels, None)
    return principal_components(train, levels, COMPONENTS, whiten=False)


def principal_components(train: Tensor, levels: int, limit: int, whiten: bool = True) -> Features:
    """The leading principal components of the training items, at most `limit`.

    Args:
        train: `(N, C, *size)` integer levels.
        levels: number of levels.
        limit: most components.
        whiten: scale each to unit variance on the training items.
    """
    raw = _raw(train, levels).numpy()
    count = min(limit, *raw.shape)
    fitted = PCA(count, whiten=whiten, svd_solver="randomized", random_state=0).fit(raw)
    return Features(f"{count} principal components of {_raw_name(train)}", levels, fitted)


def _raw_name(x: Tensor) -> str:
    return {3: "log spectra", 4: "pixels", 5: "frame spectra"}[x.ndim]


def _raw(x: Tensor, levels: int) -> Tensor:
    """`(N, C, *size)` to `(N, entries)` float32: entries in [0, 1], or spectra."""
    scaled = x.float().cpu() / (levels - 1)
    if x.ndim == 4:
        return scaled.flatten(1)
    if x.ndim == 5:  # the magnitude of a spectrum does not change when a frame is shifted
        return torch.fft.rfft2(scaled, norm="ortho").abs().mean(2).flatten(1)
    window = max(4, x.shape[-1] // FRAMES)
    frames = (scaled * 2 - 1).unfold(-1, window, window)  # (N, C, frames, window)
    spectra = torch.fft.rfft(frames * torch.hann_window(window)).abs()
    return (spectra / window + FLOOR).log().flatten(1)
