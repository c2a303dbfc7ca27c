"""A partition of the codes for the pruned search: k-means, which decides its speed alone."""

from __future__ import annotations

import torch
from torch import Tensor

_ITERATIONS = 8
_PAIRS = 1 << 21  # of codes and centres that are in memory at a time


def distances(vectors: Tensor, centres: Tensor) -> Tensor:
    """|v - m| of all pairs, by differences: float64, off by less than (D + 8) 2^-53 of it."""
    return torch.cdist(vectors, centres, compute_mode="donot_use_mm_for_euclid_dist")


def blocks(num_codes: int, num_cells: int) -> list[slice]:
    """Codes whose pairs with all centres fit into memory."""
    step = max(1, _PAIRS // num_cells)
    return [slice(start, start + step) for start in range(0, num_codes, step)]


def partition(codes: Tensor, finite: Tensor, num_cells: int) -> tuple[Tensor, Tensor]:
    """Centres (G, D) and the cell of every code (K,), G for one that is not finite.

    Args:
        codes: (K, D) float64, zeros where not finite.
        finite: (K,) bool.
    """
    k, dim = codes.shape
    order = torch.randperm(k, generator=torch.Generator().manual_seed(0))
    centres = codes[order[:num_cells].to(codes.device)]
    for _ in range(_ITERATIONS):
        cell = _nearest(codes, finite, centres)
        counts = torch.bincount(cell, minlength=num_cells + 1)[:num_cells, None]
        sums = codes.new_zeros(num_cells + 1, dim).index_add_(0, cell, codes)[:num_cells]
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
    return centres, _nearest(codes, finite, centres)


def _nearest(codes: Tensor, finite: Tensor, centres: Tensor) -> Tensor:
    nearest = [
        distances(codes[block], centres).argmin(dim=1)
        for block in blocks(len(codes), len(centres))
    ]
    return torch.cat(nearest).masked_fill(~finite, len(centres))
