"""Likelihoods that integrate a density over the bin of each level.

With levels scaled to [-1, 1], level l is the interval of width 2 / (levels - 1) about
2 l / (levels - 1) - 1. The lowest and the highest level also take what lies beyond them: without
that, a level where half of the data are (black) could never be likely.

In eval mode a share `UNIFORM` of every distribution is uniform, so that an entry costs at most
log2(levels) + 20 bits. Without it a single held-out entry that a narrow density misses costs
hundreds. In training it would silence the gradient of just those entries, so there it is left out.
`MIN_SCALE`, of a bin's width, keeps a density from becoming a point, and `FIRST_SCALE` is where a
raw scale of 0 starts: near the errors of a decoder that has learned a little, so that training
weighs reconstruction and quantizer losses as it will in the end.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vqtrain.models.likelihood.likelihood import Likelihood

UNIFORM = 2.0**-20
MIN_SCALE = 0.05
FIRST_SCALE = 0.2
_SHIFT = math.log(math.expm1(FIRST_SCALE))


class Binned(Likelihood):
    """Base: a subclass gives `_density`, `_log_bin` and `_cdf`."""

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        log_bin = self._log_bin(self._density(self.per_channel(parameters)), x)
        if self.training:
            return log_bin
        floor = log_bin.new_tensor(math.log(UNIFORM / self.levels))
        return torch.logaddexp(log_bin + math.log1p(-UNIFORM), floor)

    def mean(self, parameters: Tensor) -> Tensor:
        """Expected level: the sum over l of P(x > l)."""
        density = self._density(self.per_channel(parameters))
        mean = 1 - self._mixed_cdf(density, 0)
        for level in range(1, self.levels - 1):
            mean = mean + (1 - self._mixed_cdf(density, level))
        return mean

    def draw(self, parameters: Tensor, uniforms: Tensor) -> Tensor:
        """Finds the first level whose CDF exceeds the uniform number, by bisection."""
        density = self._density(self.per_channel(parameters.double()))
        low = torch.zeros_like(uniforms, dtype=torch.int64)
        high = torch.full_like(low, self.levels - 1)
        for _ in range((self.levels - 1).bit_length()):
            middle = (low + high) // 2
            above = (self._mixed_cdf(density, middle.double()) <= uniforms) & (low < high)
            low, high = torch.where(above, middle + 1, low), torch.where(above, high, middle)
        return low

    def _density(self, parameters: Tensor) -> Any:
        """What `(B, P, C, *size)` parameters mean, for the two below."""
        raise NotImplementedError

    def _log_bin(self, density: Any, x: Tensor) -> Tensor:
        """Log of the density's integral over the bin of x, `(B, C, *size)`."""
        raise NotImplementedError

    def _cdf(self, density: Any, edge: Tensor | float) -> Tensor:
        """The density's integral up to `edge`."""
        raise NotImplementedError

    def _mixed_cdf(self, density: Any, level: Tensor | int) -> Tensor:
        """P(x <= level) for levels below the highest one."""
        edge = (2 * level + 1) / (self.levels - 1) - 1
        return (1 - UNIFORM) * self._cdf(density, edge) + UNIFORM * (level + 1) / self.levels

    @property
    def _half_bin(self) -> float:
        return 1 / (self.levels - 1)

    def _scale(self, raw: Tensor) -> Tensor:
        """Any number to a scale above the least one; smooth, so that none gets stuck there."""
        return F.softplus(raw + _SHIFT) + MIN_SCALE * 2 * self._half_bin
