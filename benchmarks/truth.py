"""The nearest codes in float64, of every row, without any of our kernels.

A float64 matrix product scores all pairs. A rigorous bound on its rounding says which codes of a
row it cannot tell apart; those alone are evaluated as F is defined (see DESIGN.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_PAIRS = 1 << 22  # per block: 32 MB of scores


class Nearest(NamedTuple):
    indices: Tensor  # (N,) int64, ties in F to the lowest index
    scores: Tensor  # (N,) float64, F of that code


class Wrong(NamedTuple):
    """Rows of a contender.

    Attributes:
        rows: whose code is farther away than the nearest one.
        ties: whose code is as near as the nearest one, but not the lowest index of those.
    """

    rows: int
    ties: int


Judge = Callable[[Tensor], Wrong]


def judge(x: Tensor, codebook: Tensor, rows: int | None = None) -> Judge:
    """What counts the wrong rows of anyone's indices for x (N, D) and a codebook (K, D).

    Of codebooks (L, K, D) and indices (N, L): every level is judged on what the contender's own
    levels before it have left, r - c in float32; a row is wrong that is wrong at any level.

    Args:
        rows: only so many are judged, the same ones for everybody; all by default.
    """
    if codebook.ndim == 3:
        return lambda found: _wrong_at_any_level(x, codebook, found.detach().to(x.device))
    if rows is not None and rows < len(x):
        some = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:rows]
        some = some.to(x.device)
        judged = judge(x[some], codebook)
        return lambda found: judged(found.detach().to(x.device).reshape(-1)[some])
    truth = nearest(x, codebook)
    return lambda found: wrong(x, codebook, found, truth)


def nearest(x: Tensor, codebook: Tensor) -> Nearest:
    """The nearest codes of x (N, D) in a codebook (K, D), both finite and on one device."""
    rows, codes = x.detach().double(), codebook.detach().double()
    if not bool(rows.isfinite().all() and codes.isfinite().all()):
        raise ValueError("x and codebook must be finite, got a value that is not")
    distinct, original = _distinct(codes)
    centre = distinct.mean(dim=0)
    shifted = distinct - centre
    half = shifted.square().sum(dim=1) / 2
    reach = shifted.norm(dim=1).max()
    indices = torch.empty(len(rows), dtype=torch.int64, device=rows.device)
    scores = torch.empty(len(rows), dtype=torch.float64, device=rows.device)
    for part in torch.arange(len(rows), device=rows.device).split(max(1, _PAIRS // len(distinct))):
        block = rows[part]
        away = block - centre
        screen = torch.addmm(half, away, shifted.T, alpha=-1)
        # Rounding of the shift, of the product and of the norms, and of the two values of F that
        # the screen stands for, D + 8 operations each: four times what it can be.
        slack = 4 * (block.shape[1] + 8) * 2.0**-52 * (away.norm(dim=1) + reach).square()
        near = screen <= (screen.amin(dim=1) + slack)[:, None]
        row, code = near.nonzero(as_tuple=True)
        score = canonical(block[row], distinct[code])
        best = torch.full_like(block[:, 0], torch.inf)
        best = best.scatter_reduce(0, row, score, "amin")
        chosen = torch.where(score == best[row], original[code], len(codes))
        none = torch.full_like(part, len(codes))
        indices[part] = none.scatter_reduce(0, row, chosen, "amin")
        scores[part] = best
    return Nearest(indices, scores)


def canonical(rows: Tensor, codes: Tensor) -> Tensor:
    """F of each row of ``rows`` with that row of ``codes``: i ascending, no fused operation."""
    total = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    for i in range(rows.shape[1]):
        difference = rows[:, i].double() - codes[:, i].double()
        total = total + difference * difference
    return total


def wrong(x: Tensor, codebook: Tensor, found: Tensor, truth: Nearest) -> Wrong:
    """Compares a contender's indices with ``nearest(x, codebook)``."""
    farther, tied = _compare(x, codebook, found, truth)
    return Wrong(int(farther.sum()), int(tied.sum()))


def _wrong_at_any_level(x: Tensor, codebooks: Tensor, found: Tensor) -> Wrong:
    left, farther, tied = x, *torch.zeros(2, len(x), dtype=torch.bool, device=x.device)
    for level, codebook in enumerate(codebooks):
        chosen = found[:, level]
        compared = _compare(left, codebook, chosen, nearest(left, codebook))
        farther, tied = farther | compared[0], tied | compared[1]
        left = left - codebook[chosen]
    return Wrong(int(farther.sum()), int((tied & ~farther).sum()))


def _compare(x: Tensor, codebook: Tensor, found: Tensor, truth: Nearest) -> tuple[Tensor, Tensor]:
    """Rows whose code is farther than the nearest one, and rows with another one as near."""
    found = found.detach().to(x.device).long().reshape(-1)
    score = canonical(x.detach(), codebook.detach()[found])
    farther = score > truth.scores
    return farther, ~farther & (found != truth.indices)


def _distinct(codes: Tensor) -> tuple[Tensor, Tensor]:
    """The codes without repetitions, and the lowest index of each."""
    distinct, which = codes.unique(dim=0, return_inverse=True)
    numbers = torch.arange(len(codes), device=codes.device)
    lowest = torch.full_like(numbers[: len(distinct)], len(codes))
    return distinct, lowest.scatter_reduce(0, which, numbers, "amin")
