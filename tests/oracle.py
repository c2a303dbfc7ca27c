"""The canonical search in numpy: the definition of ``indices`` and ``distances``, nothing else.

Independent of vqkernels. F is a float64 sum over the channels in ascending order, multiply and add
rounded separately (numpy has no fused multiply-add); ties go to the lowest index; a row with a NaN
or an infinity gets index 0 and NaN, a code with one never wins.
"""

from __future__ import annotations

import functools

import cases
import numpy as np
import torch
from torch import Tensor

_PAIRS = 8192  # per block: small enough that numpy reuses the memory of its temporaries


def nearest_code(x: Tensor, codebook: Tensor, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """(indices, float32 distances) of the rows of x (N, D); the codebook is not normalised yet."""
    rows, codes = x.double().numpy(), codebook.double().numpy()
    if metric == "cosine":
        codes = normalised(codes).astype(np.float64)
    usable = np.isfinite(codes).all(axis=1)
    indices = np.zeros(len(rows), dtype=np.int64)
    distances = np.full(len(rows), np.nan, dtype=np.float32)
    step = max(1, _PAIRS // len(codes))
    for start in range(0, len(rows), step):
        block = slice(start, start + step)
        with np.errstate(all="ignore"):
            score = pair_scores(rows[block], codes, metric)
        signed = score if metric == "l2" else -score
        signed = np.where(usable[None, :], signed, np.inf)
        winner = np.where(np.isnan(signed), np.inf, signed).argmin(axis=1)  # first of equals
        found = np.isfinite(rows[block]).all(axis=1) & usable.any()
        with np.errstate(over="ignore"):
            best = np.take_along_axis(score, winner[:, None], axis=1)[:, 0].astype(np.float32)
        indices[block] = np.where(found, winner, 0)
        distances[block] = np.where(found, best, np.nan)
    return indices, distances


def nearest_codes(
    x: Tensor, codebook: Tensor, k: int, metric: str
) -> tuple[np.ndarray, np.ndarray]:
    """(N, k) indices and float32 distances: the codes sorted by F, equal ones by index.

    Places that no finite code fills have index 0 and NaN.
    """
    rows, codes = x.double().numpy(), codebook.double().numpy()
    if metric == "cosine":
        codes = normalised(codes).astype(np.float64)
    usable = np.isfinite(codes).all(axis=1)
    indices = np.zeros((len(rows), k), dtype=np.int64)
    distances = np.full((len(rows), k), np.nan, dtype=np.float32)
    step = max(1, _PAIRS // len(codes))
    for start in range(0, len(rows), step):
        block = slice(start, start + step)
        with np.errstate(all="ignore"):
            score = pair_scores(rows[block], codes, metric)
            signed = np.where(usable[None, :], score if metric == "l2" else -score, np.inf)
            order = np.argsort(signed, axis=1, kind="stable")[:, :k]
            found = np.isfinite(rows[block]).all(axis=1)[:, None] & usable[order]
            best = np.take_along_axis(score, order, axis=1).astype(np.float32)
        indices[block] = np.where(found, order, 0)
        distances[block] = np.where(found, best, np.nan)
    return indices, distances


@functools.cache
def on_case(name: str, dtype: torch.dtype, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """The result on a case of the table, computed once per process."""
    return nearest_code(*cases.search(name, dtype), metric)


def residual(x: Tensor, codebooks: Tensor) -> tuple[Tensor, Tensor]:
    """(N, L) indices and (L + 1, N, D) float32 residuals of the rows of x, level by level.

    ``codebooks`` is (L, K, D). A row that is not finite, or no longer, has index 0 and NaN.
    """
    left, indices = [x.float().numpy()], []
    for codes in codebooks:
        chosen, _ = nearest_code(torch.from_numpy(left[-1]), codes, "l2")
        code = codes.float().numpy()[chosen]
        finite = np.isfinite(left[-1]).all(axis=1, keepdims=True)
        with np.errstate(over="ignore", invalid="ignore"):
            left.append(np.where(finite, left[-1] - code, np.float32("nan")))
        indices.append(chosen)
    return torch.from_numpy(np.stack(indices, axis=1)), torch.from_numpy(np.stack(left))


def pair_scores(rows: np.ndarray, codes: np.ndarray, metric: str) -> np.ndarray:
    """F of every pair, (N, K): squared distance, or dot product for cosine."""
    score = np.zeros((len(rows), len(codes)))
    for i in range(rows.shape[1]):
        if metric == "l2":
            t = rows[:, i, None] - codes[None, :, i]
            score = score + t * t
        else:
            score = score + rows[:, i, None] * codes[None, :, i]
    return score


def normalised(codes: np.ndarray) -> np.ndarray:
    """float32(c / |c|) with |c| summed in ascending order; a zero code stays zero."""
    total = np.zeros(len(codes))
    for i in range(codes.shape[1]):
        total = total + codes[:, i] * codes[:, i]
    norm = np.sqrt(total)
    with np.errstate(all="ignore"):
        return (codes / np.where(norm == 0, 1.0, norm)[:, None]).astype(np.float32)
