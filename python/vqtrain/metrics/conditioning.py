"""How much priors listen to the class.

    gap = E[ log2 p(z | y) - log2 mean over y' of p(z | y') ]        bits per item

is an estimate of the information between codes and class under the model: 0 for a prior that
ignores the class, and never more than log2(classes), since the mean holds p(z | y) / classes.
The gap to a trained null label has no such bound and is not this one. Bayes accuracy is how often
the class with the greatest p(z | y) is the true one.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vqtrain.metrics.estimate import estimate
from vqtrain.metrics.ledger import BITS, prior_nats
from vqtrain.models.tokenizer import Codes
from vqtrain.priors.prior import Prior

ROUNDING = 1e-3  # bits; sums of float32 log probabilities


class Conditioning(NamedTuple):
    """How much the class tells.

    Attributes:
        gap_bits: per item, all levels of codes together.
        gap_standard_error: from its spread over items.
        gap_bound_bits: log2(classes).
        bayes_accuracy: in [0, 1]; 1 / classes for a prior that ignores the class.
        items: items measured.
    """

    gap_bits: float
    gap_standard_error: float | None
    gap_bound_bits: float
    bayes_accuracy: float
    items: int


@torch.no_grad()
def conditioning(
    priors: Sequence[Prior], codes: Codes, labels: Tensor, num_classes: int
) -> Conditioning:
    """Measures all levels as one model of the codes.

    Args:
        priors: one per level, top first, each with an exact likelihood.
        codes: one `(N, *grid)` tensor per level.
        labels: `(N,)` int64 in `0 .. num_classes - 1`.
        num_classes: number of clean classes.

    Raises:
        ValueError: if the gap exceeds log2(num_classes): the priors gave different values to the
            same codes, as they do with dropout on.
    """
    by_class = torch.stack(
        [_log_p(priors, codes, torch.full_like(labels, y)) for y in range(num_classes)]
    )
    mixture = by_class.logsumexp(0) - math.log(num_classes)
    # Evaluated once more, not looked up: only so can a prior that is not a function be found out.
    gaps = (_log_p(priors, codes, labels) - mixture) * BITS
    gap, bound = estimate(gaps), math.log2(num_classes)
    if not gaps.max().item() <= bound + ROUNDING:
        raise ValueError(
            f"conditioning gap must be at most log2({num_classes}) = {bound:.3f} bits for every "
            f"item, got {gaps.max().item():.3f}: priors must be in eval mode, without dropout"
        )
    right = (by_class.argmax(0) == labels).double().mean().item()
    return Conditioning(gap.mean, gap.standard_error, bound, right, len(labels))


def _log_p(priors: Sequence[Prior], codes: Codes, labels: Tensor) -> Tensor:
    """`(N,)` float64 log p(z | y), the levels added up."""
    levels = [nats for nats in prior_nats(priors, codes, labels) if nats is not None]
    if len(levels) != len(priors):
        raise ValueError("priors must have an exact likelihood, got a masked prior")
    return -torch.stack(levels).double().sum(0)
