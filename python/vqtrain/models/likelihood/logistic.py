"""The discretised logistic mixture (Salimans et al. 2017, arXiv 1701.05517, equation 2)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from vqtrain.models.levels import scaled
from vqtrain.models.likelihood.binned import Binned


class Mixture(NamedTuple):
    """`(B, M, C, *size)` each."""

    log_weights: Tensor
    location: Tensor
    scale: Tensor


class LogisticMixture(Binned):
    """p(x = l) = sum_m w_m (F((e + h - mu_m) / s_m) - F((e - h - mu_m) / s_m)), F the sigmoid.

    e is the scaled level and h half a bin. P = 3 M: logits of w, mu, and s before a softplus.
    Channels are independent, other than in the paper.

    Args:
        levels: different values of an entry.
        mixtures: M.
    """

    def __init__(self, levels: int, mixtures: int) -> None:
        super().__init__(levels)
        if mixtures < 1:
            raise ValueError(f"mixtures must be at least 1, got {mixtures}")
        self.num_parameters = 3 * mixtures

    def _density(self, parameters: Tensor) -> Mixture:
        logits, location, raw = parameters.chunk(3, dim=1)
        return Mixture(logits.log_softmax(1), location, self._scale(raw))

    def _log_bin(self, density: Mixture, x: Tensor) -> Tensor:
        log_weights, location, scale = density
        z = (scaled(x, self.levels, location.dtype)[:, None] - location) / scale
        w = self._half_bin / scale
        lowest, highest = (x == 0)[:, None], (x == self.levels - 1)[:, None]
        # F(a) - F(b) = F(a) F(-b) (1 - exp(b - a)): no difference of nearly equal numbers.
        log_bin = (
            F.logsigmoid(z + w).masked_fill(highest, 0)
            + F.logsigmoid(w - z).masked_fill(lowest, 0)
            + torch.log(-torch.expm1(-2 * w)).masked_fill(lowest | highest, 0)
        )
        return torch.logsumexp(log_weights + log_bin, dim=1)

    def _cdf(self, density: Mixture, edge: Tensor | float) -> Tensor:
        log_weights, location, scale = density
        edge = edge[:, None] if isinstance(edge, Tensor) else edge
        return (log_weights.exp() * torch.sigmoid((edge - location) / scale)).sum(1)
