"""Normalised discrete likelihoods: they turn a decoder's output into bits.

A squared error is no likelihood. Each class here turns `num_parameters` decoder channels per
image channel into a probability of every grey level, and these sum to one. The interface is
`log_prob`, `mean` and `draw`; another likelihood (say a discretised logistic mixture) is another
class with these.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


class Categorical:
    """p(x = l) = softmax(parameters)_l for each pixel and channel, independently given the codes.

    Args:
        levels: number of grey levels.
    """

    def __init__(self, levels: int) -> None:
        if levels < 2:
            raise ValueError(f"levels must be at least 2, got {levels}")
        self.levels = levels
        self.num_parameters = levels

    def log_prob(self, parameters: Tensor, images: Tensor) -> Tensor:
        """Log probability of every pixel, in nats.

        Args:
            parameters: `(B, C * levels, H, W)` floating, unnormalised log probabilities.
            images: `(B, C, H, W)` integer levels.

        Returns:
            `(B, C, H, W)` of the parameters' dtype, at most 0.
        """
        logits = self._per_pixel(parameters)
        return -F.cross_entropy(logits, images.long(), reduction="none")

    def mean(self, parameters: Tensor) -> Tensor:
        """Expected grey level of every pixel, `(B, C, H, W)` in `[0, levels - 1]`."""
        levels = torch.arange(self.levels, dtype=parameters.dtype, device=parameters.device)
        return torch.einsum("bl...,l->b...", self._per_pixel(parameters).softmax(1), levels)

    def draw(self, parameters: Tensor, uniforms: Tensor) -> Tensor:
        """Draws every pixel by inverse CDF.

        Args:
            parameters: `(B, C * levels, H, W)`.
            uniforms: `(B, C, H, W)` in [0, 1).

        Returns:
            `(B, C, H, W)` int64 levels.
        """
        cdf = self._per_pixel(parameters).double().softmax(1).cumsum(1)
        return (cdf <= uniforms[:, None]).sum(1).clamp(max=self.levels - 1)

    def _per_pixel(self, parameters: Tensor) -> Tensor:
        """`(B, C * levels, H, W)` to `(B, levels, C, H, W)`."""
        if parameters.shape[1] % self.levels:
            raise ValueError(
                f"parameters must have a multiple of {self.levels} channels, "
                f"got {parameters.shape[1]}"
            )
        return parameters.unflatten(1, (-1, self.levels)).transpose(1, 2)
