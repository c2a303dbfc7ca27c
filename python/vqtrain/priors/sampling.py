"""How a code is drawn from logits: temperature, top-k, top-p, guidance and an inverse CDF.

The uniform numbers are drawn beforehand, one per position, so that every sampler which sees the
same logits draws the same codes: what makes cached and naive sampling comparable.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Settings of a draw; the defaults sample the model itself.

    Args:
        temperature: divides the logits.
        top_k: keep the k likeliest codes; 0 keeps all.
        top_p: keep the likeliest codes whose probabilities sum to at least p; 1 keeps all.
        guidance: w of logits(null) + w * (logits(label) - logits(null)); 1 is the conditional
            model (Ho and Salimans 2022, arXiv 2207.12598). Needs a prior trained with label
            dropout.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    guidance: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be at least 0, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")


def guided(conditional: Tensor, null: Tensor, guidance: float) -> Tensor:
    """Classifier-free guidance of two sets of logits."""
    return torch.lerp(null, conditional, guidance)


def draw(logits: Tensor, uniforms: Tensor, sampler: Sampler) -> Tensor:
    """`(B, K)` logits and `(B,)` float64 uniforms in [0, 1) to `(B,)` int64 codes."""
    raise NotImplementedError
