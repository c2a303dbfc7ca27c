"""How a code is drawn from logits: temperature, top-k, top-p, guidance and an inverse CDF.

The uniform numbers are drawn beforehand, one per position, so that every sampler which sees the
same logits draws the same codes: what makes cached and naive sampling comparable.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Settings of a draw; the defaults sample the model itself.

    Args:
        temperature: divides the logits.
        top_k: keep the k likeliest codes, and all that tie with the last of them; 0 keeps all.
        top_p: keep the likeliest codes, the fewest whose probabilities sum to at least p; 1 keeps
            all (Holtzman et al. 2019, arXiv 1904.09751).
        guidance: w of logits(null) + w * (logits(label) - logits(null)); 1 is the conditional
            model (Ho and Salimans 2022, arXiv 2207.12598). Needs a prior trained with label
            dropout.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    guidance: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature must be positive and finite, got {self.temperature}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be at least 0, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")
        if not math.isfinite(self.guidance):
            raise ValueError(f"guidance must be finite, got {self.guidance}")


def guided(conditional: Tensor, null: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance of two sets of logits."""
    return torch.lerp(null, conditional, guidance)


def draw(logits: Tensor, uniforms: Tensor, sampler: Sampler) -> Tensor:
    """Draws one code per row by inverse CDF, in float64; guidance has been applied.

    A code is drawn when its uniform falls into its interval of the cumulative probabilities,
    closed below and open above: a code of probability zero has an empty one.

    Args:
        logits: `(B, K)` unnormalised log probabilities; -inf is probability zero.
        uniforms: `(B,)` float64 in [0, 1).
        sampler: temperature, top-k and top-p, applied in this order.

    Returns:
        `(B,)` int64 codes.
    """
    if sampler.temperature != 1:
        logits = logits.double() / sampler.temperature
    if 0 < sampler.top_k < logits.shape[1]:
        last = logits.topk(sampler.top_k, dim=1).values[:, -1:]
        logits = logits.masked_fill(logits < last, -torch.inf)
    probabilities = logits.softmax(1, dtype=torch.float64)
    if sampler.top_p < 1:
        probabilities = _nucleus(probabilities, sampler.top_p)
    cdf = probabilities.cumsum(1)
    # The sum may miss 1 by rounding: the target is relative to it, so it always stays below.
    target = uniforms[:, None] * cdf[:, -1:]
    return torch.searchsorted(cdf, target, right=True).squeeze(1)


def _nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Zeroes a code when those before it already sum to p; ties go to the lower code."""
    ordered, order = probabilities.sort(dim=1, descending=True, stable=True)
    before = F.pad(ordered.cumsum(1)[:, :-1], (1, 0))  # 0 for the likeliest: one always stays
    kept = ordered.masked_fill(before >= top_p, 0)
    return torch.zeros_like(kept).scatter(1, order, kept)
