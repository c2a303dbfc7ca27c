"""The search in plain PyTorch: as most models have it, and in the best form that we know of.

For an x of a short dtype the codes are cast to it: a matrix product has operands of one dtype.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.peers.provider import Call, Provider, UnavailableError

_BLOCKS = (64, 256, 1024, 4096, 16384)
_LARGEST_BLOCK_BYTES = 1 << 30
_TRIES = 4


def naive(x: Tensor, codebook: Tensor) -> Call:
    """The form found in most models: the whole (N, K) matrix, then argmin."""
    codes = codebook.to(x.dtype)

    def search() -> Tensor:
        distances = x.square().sum(1, keepdim=True) + codes.square().sum(1) - 2 * x @ codes.T
        return distances.argmin(1)

    return search


def naive_in_tf32(x: Tensor, codebook: Tensor) -> Call:
    """The same as training scripts run it that set the precision of products to "high"."""
    if x.dtype is not torch.float32:
        raise UnavailableError("is for float32")
    search = naive(x, codebook)

    def rounded() -> Tensor:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")
        try:
            return search()
        finally:
            torch.set_float32_matmul_precision(before)

    return rounded


def naive_in_bf16(x: Tensor, codebook: Tensor) -> Call:
    """The same under autocast: the product, and with it the score, in bfloat16."""
    if x.dtype is not torch.float32:
        raise UnavailableError("is for float32")
    search = naive(x, codebook)

    def rounded() -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            return search()

    return rounded


def cdist(x: Tensor, codebook: Tensor) -> Call:
    if x.dtype is not torch.float32:
        raise UnavailableError("is for float32")
    return lambda: torch.cdist(x, codebook).argmin(1)


def chunked(x: Tensor, codebook: Tensor, rows: int) -> Call:
    """Blocks of rows, |x|^2 left out, |c|^2 added by the product itself.

    Scores and indices are written in place: blocks that are allocated anew cost twice as much
    where the allocator returns them to the system.
    """
    codes = codebook.to(x.dtype)

    def search() -> Tensor:
        half = codes.square().sum(1) / 2
        scores = x.new_empty(rows, len(codes))
        indices = torch.empty(len(x), dtype=torch.int64, device=x.device)
        for block, found in zip(x.split(rows), indices.split(rows), strict=True):
            part = scores[: len(block)]
            torch.addmm(half, block, codes.T, alpha=-1, out=part)
            torch.argmin(part, 1, out=found)
        return indices

    return search


def compiled(x: Tensor, codebook: Tensor, rows: int) -> Call:
    """The same blocks, each by one compiled function."""
    nearest = _compiled_block()
    codes = codebook.to(x.dtype)

    def search() -> Tensor:
        half = codes.square().sum(1) / 2
        return torch.cat([nearest(half, block, codes) for block in x.split(rows)])

    return search


def best_block(x: Tensor, codebook: Tensor) -> dict[str, int]:
    """The number of rows per block that is fastest here, all of N at once among them."""
    n, k = len(x), len(codebook)
    most = min(n, max(_BLOCKS[0], _LARGEST_BLOCK_BYTES // (4 * k)))
    sizes = [rows for rows in (*_BLOCKS, n) if rows <= most] or [n]
    fastest = dict.fromkeys(sizes, math.inf)
    for rows in sizes * _TRIES:
        fastest[rows] = min(fastest[rows], _seconds_per_row(x, codebook, rows))
    return {"rows": min(sizes, key=fastest.__getitem__)}


def _seconds_per_row(x: Tensor, codebook: Tensor, rows: int) -> float:
    part = x[: max(rows, min(len(x), 4096))]
    search = chunked(part, codebook, rows)
    started = time.perf_counter()
    search().cpu()  # waits for the device
    return (time.perf_counter() - started) / len(part)


@functools.cache
def _compiled_block() -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    def nearest(half: Tensor, block: Tensor, codebook: Tensor) -> Tensor:
        return torch.addmm(half, block, codebook.T, alpha=-1).argmin(1)

    # With fullgraph a recompilation beyond the limit is an error and not a silent eager run.
    return torch.compile(nearest, dynamic=False, fullgraph=True)


SEARCH = (
    Provider("torch N x K", naive, bytes_per_pair=12),
    Provider("torch N x K, TF32", naive_in_tf32, bytes_per_pair=12, devices=("cuda",)),
    Provider("torch N x K, bf16", naive_in_bf16, bytes_per_pair=12, devices=("cuda",)),
    Provider("torch.cdist", cdist, bytes_per_pair=4),
    Provider("torch chunked", chunked, settings=best_block),
    Provider("torch.compile", compiled, settings=best_block),
)
