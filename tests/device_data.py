"""Data of the GPU benchmarks: what ``cases.DATA`` holds, at a million rows and made in seconds.

x is drawn on the CPU, the same on every machine. Codes are k-means codes: three iterations on at
most 16 rows per code, each row's nearest code found on the device.

"photo patches" are windows of the photographs at every pixel, and of their mirror images: four
pictures have two million, so that no row has to be repeated. A width says what a window is: the
leading principal components of colour windows, or all pixels of grey ones.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import cases
import torch
from torch import Tensor

_ITERATIONS = 3
_ROWS_PER_CODE = 16
_PAIRS = 1 << 28  # per block: a gigabyte of scores
_ROWS_FOR_COMPONENTS = 1 << 16
# Channels -> side of a window and whether it has colours.
WINDOWS = {8: (2, True), 16: (4, True), 32: (4, True), 64: (8, False), 128: (8, True)}
WINDOWS[256] = (16, False)


def gaussian(n: int, k: int, d: int, device: torch.device) -> tuple[Tensor, Tensor]:
    x = torch.randn(n, d, generator=cases.generator(0))
    return _with_codes(x, k, device)


def photo(n: int, k: int, d: int, device: torch.device) -> tuple[Tensor, Tensor]:
    return _with_codes(_photo_rows(n, d), k, device)


@functools.lru_cache(maxsize=1)
def _photo_rows(n: int, d: int) -> Tensor:
    size, colour = WINDOWS[d]
    rows = windows(n, size, colour)
    return rows if rows.shape[1] == d else components(rows, d)


def components(rows: Tensor, d: int) -> Tensor:
    """The d leading principal components of rows in random order, the largest one last."""
    centred = rows - rows.mean(dim=0)
    some = centred[:_ROWS_FOR_COMPONENTS].double()
    _, directions = torch.linalg.eigh(some.T @ some)  # ascending
    return centred @ directions[:, -d:].float()


def windows(n: int, size: int, colour: bool) -> Tensor:
    """n of all windows of all photographs and mirror images, in random order."""
    images = [image if colour else image.mean(dim=2, keepdim=True) for image in cases.photos()]
    views = [
        version.unfold(0, size, 1).unfold(1, size, 1)
        for image in images
        for version in (image, image.flip(1))
    ]
    counts = torch.tensor([view.shape[0] * view.shape[1] for view in views])
    assert n <= int(counts.sum()), (n, counts)
    chosen = torch.randperm(int(counts.sum()), generator=cases.generator(0))[:n]
    first = counts.cumsum(0) - counts
    source = torch.searchsorted(first, chosen, right=True) - 1
    rows = torch.empty(n, views[0][0, 0].numel())
    for index, view in enumerate(views):
        here = (source == index).nonzero()[:, 0]
        position = chosen[here] - first[index]
        width = view.shape[1]
        rows[here] = view[position // width, position % width].reshape(len(here), -1)
    return rows


def _with_codes(x: Tensor, k: int, device: torch.device) -> tuple[Tensor, Tensor]:
    rows = x[: max(k, min(len(x), _ROWS_PER_CODE * k))]
    codes = rows[torch.randperm(len(rows), generator=cases.generator(1))[:k]].clone()
    placed = rows.to(device)
    for _ in range(_ITERATIONS):
        # The sums are taken on the CPU: on a GPU their order would differ from run to run.
        nearest = _nearest(placed, codes.to(device)).cpu()
        counts = torch.bincount(nearest, minlength=k)
        sums = torch.zeros_like(codes).index_add_(0, nearest, rows)
        codes = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], codes)
    return x.to(device), codes.to(device)


def _nearest(rows: Tensor, codes: Tensor) -> Tensor:
    half = codes.square().sum(dim=1) / 2
    blocks = rows.split(max(1, _PAIRS // len(codes)))
    return torch.cat([torch.addmm(half, block, codes.T, alpha=-1).argmin(1) for block in blocks])


DATA: dict[str, Callable[[int, int, int, torch.device], tuple[Tensor, Tensor]]] = {
    "Gaussian, k-means codes": gaussian,
    "photo patches": photo,
}
