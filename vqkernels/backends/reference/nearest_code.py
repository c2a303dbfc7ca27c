"""nearest_code: the canonical score of every pair, in blocks."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels._layout import as_rows, row_shape
from vqkernels._numerics import upcast

_BLOCK = 1024  # rows and codes per block of pairs: 8 MB of float64


def nearest_code(
    x: Tensor, codebook: Tensor, metric: str, channel_dim: int
) -> tuple[Tensor, Tensor]:
    """Indices (int64) and scores (float32) of the best code for every position of x."""
    rows = upcast(as_rows(x, channel_dim))
    codes = upcast(codebook)
    sign = 1.0 if metric == "l2" else -1.0
    usable = codes.isfinite().all(dim=1)
    indices = torch.zeros(rows.shape[0], dtype=torch.int64, device=x.device)
    best = torch.full_like(indices, torch.inf, dtype=torch.float64)
    for row in range(0, rows.shape[0], _BLOCK):
        here = slice(row, row + _BLOCK)
        for code in range(0, codes.shape[0], _BLOCK):
            there = slice(code, code + _BLOCK)
            score = sign * canonical_score(rows[here], codes[there], metric)
            score = torch.where(usable[there], score, torch.inf)
            value, index = _lowest_minimum(score)
            better = value < best[here]
            indices[here] = torch.where(better, index + code, indices[here])
            best[here] = torch.where(better, value, best[here])
    lost = ~rows.isfinite().all(dim=1) | best.isinf()
    indices = indices.masked_fill(lost, 0)
    distances = (sign * best).masked_fill(lost, torch.nan).float()
    shape = row_shape(x, channel_dim)
    return indices.reshape(shape), distances.reshape(shape)


def canonical_score(rows: Tensor, codes: Tensor, metric: str) -> Tensor:
    """F for every pair of a block."""
    return score_of(rows[:, None], codes, metric)


def score_of(rows: Tensor, codes: Tensor, metric: str) -> Tensor:
    """F along the last dimension; the loop over i is the definition, not an oversight."""
    shape = torch.broadcast_shapes(rows.shape, codes.shape)[:-1]
    score = torch.zeros(shape, dtype=torch.float64, device=rows.device)
    for i in range(rows.shape[-1]):
        if metric == "l2":
            t = rows[..., i] - codes[..., i]
            score = score + t * t
        else:
            score = score + rows[..., i] * codes[..., i]
    return score


def _lowest_minimum(score: Tensor) -> tuple[Tensor, Tensor]:
    """Minimum along dim 1 and the lowest index that attains it; NaN counts as +inf."""
    score = torch.where(score.isnan(), torch.inf, score)
    value = score.amin(dim=1)
    position = torch.arange(score.shape[1], device=score.device)
    attained = torch.where(score == value[:, None], position, score.shape[1])
    return value, attained.amin(dim=1).clamp(max=score.shape[1] - 1)
