"""The losses of LFQ, of which theirs forms the probabilities of all codes for every row."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vqkernels import ops
from vqkernels._numerics import sum_of_many

FLOOR = 1e-5  # theirs takes no logarithm of less


class LossBreakdown(NamedTuple):
    """The terms of LFQ's loss, 0-d, without their weights."""

    per_sample_entropy: Tensor
    batch_entropy: Tensor
    commitment: Tensor


def entropies(
    rows: Tensor, kept: Tensor | None, log_odds: float, *, pooled: bool, ranks: int
) -> tuple[Tensor, Tensor]:
    """(mean entropy of a row's probabilities, entropy of their mean), means over the codebooks.

    An entropy is ``-sum p log max(p, 1e-5)`` over the codes in {-1, 1}^bits; the logarithm of a
    smaller p has no gradient, as ``clamp`` makes it.

    Args:
        rows: (*positions, C, bits), a bit of which is set with probability
            sigmoid(log_odds * value).
        kept: bool, positions; None for all.
        pooled: False takes the mean over no rows at all, for the second entropy: it becomes the
            mean of what the rows have, each for itself.
        ranks: what the probabilities of the second entropy are divided by.
    """
    flat = rows.flatten(0, -3)
    kept = None if kept is None else kept.reshape(-1)
    count = len(flat) if kept is None else kept.sum()
    codebooks = flat.shape[1]

    def mean_of_rows(floor: float) -> tuple[Tensor, Tensor]:
        found, mass = ops.BitAssign.apply(flat, kept, log_odds, floor)
        return sum_of_many(found.reshape(-1)) / count / codebooks, mass

    of_rows, mass = mean_of_rows(FLOOR)
    if pooled:
        mean = mass / count / ranks
        terms = mean * mean.clamp(min=FLOOR).log()
        of_mean = -sum_of_many(terms.reshape(-1)) / codebooks
    else:
        of_mean = of_rows
        if ranks > 1:
            of_mean = (mean_of_rows(FLOOR * ranks)[0] + math.log(ranks)) / ranks
    return of_rows.to(rows.dtype), of_mean.to(rows.dtype)


def commitment(rows: Tensor, codes: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of (row - code)^2 over the numbers of valid positions."""
    if mask is None:
        return sum_of_many((rows - codes).square().reshape(-1)) / rows.numel()
    # where, not a product: what a row holds that counts nowhere must not reach the gradient.
    error = torch.where(mask[..., None, None], rows - codes, 0.0)
    count = mask.sum() * (rows.shape[-2] * rows.shape[-1])
    return sum_of_many(error.square().reshape(-1)) / count


def random_share(mask: Tensor | None, share: float, rows: Tensor) -> Tensor:
    """A random choice of a share of the valid positions (rounded down), of no size that depends
    on the mask.
    """
    positions = rows.shape[:-2]
    score = torch.rand(positions, device=rows.device).reshape(-1)
    if mask is not None:
        score = score.masked_fill(~mask.reshape(-1), torch.inf)
    count = score.isfinite().sum()
    rank = score.argsort().argsort()
    return (rank < (count * share).floor()).reshape(positions)
