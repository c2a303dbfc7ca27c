"""The search in plain PyTorch: as most models have it, and in the best form that we know of."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.peers.provider import Call, Provider

_BLOCKS = (64, 256, 1024, 4096, 16384)
_LARGEST_BLOCK_BYTES = 1 << 30


def naive(x: Tensor, codebook: Tensor) -> Call:
    """The form found in most models: the whole (N, K) matrix, then argmin."""

    def search() -> Tensor:
        distances = x.square().sum(1, keepdim=True) + codebook.square().sum(1) - 2 * x @ codebook.T
        return distances.argmin(1)

    return search


def cdist(x: Tensor, codebook: Tensor) -> Call:
    return lambda: torch.cdist(x, codebook).argmin(1)


def chunked(x: Tensor, codebook: Tensor, rows: int) -> Call:
    """Blocks of rows, |x|^2 left out, |c|^2 added by the product itself."""
    return _in_blocks(_nearest_in_block, x, codebook, rows)


def compiled(x: Tensor, codebook: Tensor, rows: int) -> Call:
    return _in_blocks(_compiled_block(), x, codebook, rows)


def best_block(x: Tensor, codebook: Tensor) -> dict[str, int]:
    """The number of rows per block that is fastest here, all of N at once among them."""
    n, k = len(x), len(codebook)
    most = min(n, max(_BLOCKS[0], _LARGEST_BLOCK_BYTES // (4 * k)))
    sizes = [rows for rows in (*_BLOCKS, n) if rows <= most] or [n]
    return {"rows": min(sizes, key=lambda rows: _seconds_per_row(x, codebook, rows))}


def _nearest_in_block(half: Tensor, block: Tensor, codebook: Tensor) -> Tensor:
    return torch.addmm(half, block, codebook.T, alpha=-1).argmin(1)


@functools.cache
def _compiled_block() -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    # With fullgraph a recompilation beyond the limit is an error and not a silent eager run.
    return torch.compile(_nearest_in_block, dynamic=False, fullgraph=True)


def _in_blocks(
    nearest: Callable[[Tensor, Tensor, Tensor], Tensor], x: Tensor, codebook: Tensor, rows: int
) -> Call:
    def search() -> Tensor:
        half = codebook.square().sum(1) / 2
        return torch.cat([nearest(half, block, codebook) for block in x.split(rows)])

    return search


def _seconds_per_row(x: Tensor, codebook: Tensor, rows: int) -> float:
    part = x[: max(rows, min(len(x), 4096))]
    search = chunked(part, codebook, rows)
    taken = []
    for _ in range(3):
        started = time.perf_counter()
        search().cpu()  # waits for the device
        taken.append(time.perf_counter() - started)
    return min(taken) / len(part)


SEARCH = (
    Provider("torch N x K", naive, bytes_per_pair=12),
    Provider("torch.cdist", cdist, bytes_per_pair=4),
    Provider("torch chunked", chunked, settings=best_block),
    Provider("torch.compile", compiled, settings=best_block),
)
