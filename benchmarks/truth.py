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


def judge(x: Tensor, codebook: Tensor, rows: int | None = None, metric: str = "l2") -> Judge:
    """What counts the wrong rows of anyone's indices for x (N, D) and a codebook (K, D).

    Of codebooks (L, K, D) and indices (N, L): every level is judged on what the contender's own
    levels before it have left, r - c in float32; a row is wrong that is wrong at any level.

    Args:
        rows: only so many are judged, the same ones for everybody; all by default.
        metric: "l2", or "cosine" for one codebook.
    """
    if codebook.ndim == 3:
        return lambda found: _wrong_at_any_level(x, codebook, found.detach().to(x.device))
    if rows is not None and rows < len(x):
        some = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:rows]
        some = some.to(x.device)
        judged = judge(x[some], codebook, metric=metric)
        return lambda found: judged(found.detach().to(x.device).reshape(-1)[some])
    truth = nearest(x, codebook, metric)
    return lambda found: wrong(x, codebook, found, truth, metric)


def nearest(x: Tensor, codebook: Tensor, metric: str = "l2") -> Nearest:
    """The nearest codes of x (N, D) in a codebook (K, D), both finite and on one device."""
    rows, codes = x.detach().double(), _searched(codebook, metric)
    if not bool(rows.isfinite().all() and codes.isfinite().all()):
        raise ValueError("x and codebook must be finite, got a value that is not")
    distinct, original = _distinct(codes)
    # A shift changes dot products, and their screen has no norms of the codes.
    centre = distinct.mean(dim=0) if metric == "l2" else torch.zeros_like(distinct[0])
    shifted = distinct - centre
    half = shifted.square().sum(dim=1) / 2 if metric == "l2" else distinct.new_zeros(len(distinct))
    reach = shifted.norm(dim=1).max()
    indices = torch.empty(len(rows), dtype=torch.int64, device=rows.device)
    scores = torch.empty(len(rows), dtype=torch.float64, device=rows.device)
    for part in torch.arange(len(rows), device=rows.device).split(max(1, _PAIRS // len(distinct))):
        block = rows[part]
        away = block - centre
        screen = torch.addmm(half, away, shifted.T, alpha=-1)
        # Rounding of the shift, of the product and of the norms, and of the two values of F that
        # the screen stands for, D + 8 operations each: four times what it can be.
        length = away.norm(dim=1)
        terms = (length + reach).square() if metric == "l2" else length * reach
        slack = 4 * (block.shape[1] + 8) * 2.0**-52 * terms
        near = screen <= (screen.amin(dim=1) + slack)[:, None]
        row, code = near.nonzero(as_tuple=True)
        score = canonical(block[row], distinct[code], metric)
        best = torch.full_like(block[:, 0], torch.inf)
        best = best.scatter_reduce(0, row, score, "amin")
        chosen = torch.where(score == best[row], original[code], len(codes))
        none = torch.full_like(part, len(codes))
        indices[part] = none.scatter_reduce(0, row, chosen, "amin")
        scores[part] = best
    return Nearest(indices, scores)


def canonical(rows: Tensor, codes: Tensor, metric: str = "l2") -> Tensor:
    """F of each row of ``rows`` with that row of ``codes``: i ascending, no fused operation.

    Less is nearer: for "cosine" it is minus the dot product with a direction.
    """
    total = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    for i in range(rows.shape[1]):
        row, code = rows[:, i].double(), codes[:, i].double()
        if metric == "l2":
            total = total + (row - code) * (row - code)
        else:
            total = total - row * code
    return total


def wrong(x: Tensor, codebook: Tensor, found: Tensor, truth: Nearest, metric: str = "l2") -> Wrong:
    """Compares a contender's indices with ``nearest(x, codebook, metric)``."""
    farther, tied = _compare(x, _searched(codebook, metric), found, truth, metric)
    return Wrong(int(farther.sum()), int(tied.sum()))


def _wrong_at_any_level(x: Tensor, codebooks: Tensor, found: Tensor) -> Wrong:
    left, farther, tied = x, *torch.zeros(2, len(x), dtype=torch.bool, device=x.device)
    for level, codebook in enumerate(codebooks):
        chosen = found[:, level]
        compared = _compare(left, codebook, chosen, nearest(left, codebook))
        farther, tied = farther | compared[0], tied | compared[1]
        left = left - codebook[chosen]
    return Wrong(int(farther.sum()), int((tied & ~farther).sum()))


def _searched(codebook: Tensor, metric: str) -> Tensor:
    """What F is of: the codes, or float32(c / |c|) with |c| summed in ascending order."""
    codes = codebook.detach().double()
    if metric == "l2":
        return codes
    norm = -canonical(codes, codes, "cosine")
    norm = norm.sqrt().masked_fill(norm == 0, 1.0)
    return (codes / norm[:, None]).float().double()


def _compare(
    x: Tensor, codes: Tensor, found: Tensor, truth: Nearest, metric: str = "l2"
) -> tuple[Tensor, Tensor]:
    """Rows whose code is farther than the nearest one, and rows with another one as near."""
    found = found.detach().to(x.device).long().reshape(-1)
    score = canonical(x.detach(), codes.detach()[found], metric)
    farther = score > truth.scores
    return farther, ~farther & (found != truth.indices)


def _distinct(codes: Tensor) -> tuple[Tensor, Tensor]:
    """The codes without repetitions, and the lowest index of each."""
    distinct, which = codes.unique(dim=0, return_inverse=True)
    numbers = torch.arange(len(codes), device=codes.device)
    lowest = torch.full_like(numbers[: len(distinct)], len(codes))
    return distinct, lowest.scatter_reduce(0, which, numbers, "amin")
