"""The Gaussian, integrated over bins."""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from vqtrain.models.levels import scaled
from vqtrain.models.likelihood.binned import Binned

SQRT2 = math.sqrt(2)
NEARLY_ALL = -10.0  # 1 - Phi(10) is nothing to a float64, and Phi's factors do not overflow


class Normal(NamedTuple):
    """Location and scale, `(B, C, *size)` each; the scale may be one number for all."""

    location: Tensor
    scale: Tensor


class BinnedGaussian(Binned):
    """p(x = l) = Phi((e + h - mu) / s) - Phi((e - h - mu) / s).

    e is the scaled level, h half a bin, and Phi the normal CDF. With one scale for all entries
    this is a squared error that has learned what a bit costs; with a scale per entry the decoder
    says where it is unsure.

    Args:
        levels: different values of an entry.
        scale: "global" learns one scale (P = 1: mu), "pixel" predicts one per entry (P = 2: mu,
            and s before a softplus).
    """

    def __init__(self, levels: int, scale: Literal["global", "pixel"]) -> None:
        super().__init__(levels)
        if scale not in ("global", "pixel"):
            raise ValueError(f'scale must be "global" or "pixel", got {scale!r}')
        self.raw_scale = nn.Parameter(torch.zeros(())) if scale == "global" else None
        self.num_parameters = 1 if scale == "global" else 2

    def _density(self, parameters: Tensor) -> Normal:
        raw = parameters[:, 1] if self.raw_scale is None else self.raw_scale.to(parameters.dtype)
        return Normal(parameters[:, 0], self._scale(raw))

    def _log_bin(self, density: Normal, x: Tensor) -> Tensor:
        # In float64: the difference of the two CDFs has no form that float32 can evaluate both
        # in the tails and for a scale of many bins.
        location, scale = density.location.double(), density.scale.double()
        z = (scaled(x, self.levels, torch.float64) - location) / scale
        w = self._half_bin / scale
        lowest, highest = x == 0, x == self.levels - 1
        # The CDFs of -t and -(t + 2 w), on that side of the mean where both are small, with
        # exp(-t^2 / 2) taken out. The second one is that of the open side, 0 for an edge level.
        t = torch.where(lowest, -z, torch.where(highest, z, z.abs())) - w
        t = t.clamp(min=NEARLY_ALL)
        near = torch.special.erfcx(t / SQRT2)
        far = torch.special.erfcx((t + 2 * w) / SQRT2) * torch.exp(-2 * w * z.abs())
        mass = near - far.masked_fill(lowest | highest, 0)
        return (torch.log(mass / 2) - t.square() / 2).to(density.location.dtype)

    def _cdf(self, density: Normal, edge: Tensor | float) -> Tensor:
        return torch.special.ndtr((edge - density.location) / density.scale)
