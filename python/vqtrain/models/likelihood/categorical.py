"""The categorical likelihood: a logit per level."""

import torch
import torch.nn.functional as F
from torch import Tensor

from vqtrain.models.likelihood.likelihood import Likelihood

CHUNK = 2**24  # probabilities that a draw holds at a time: 128 MiB


class Categorical(Likelihood):
    """p(x = l) = softmax(parameters)_l, with P = levels.

    It knows no order among the levels: right for a few of them, wasteful for 256.
    """

    def __init__(self, levels: int) -> None:
        super().__init__(levels)
        self.num_parameters = levels

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        return -F.cross_entropy(self.per_channel(parameters), x.long(), reduction="none")

    def mean(self, parameters: Tensor) -> Tensor:
        logits = self.per_channel(parameters)
        levels = torch.arange(self.levels, dtype=logits.dtype, device=logits.device)
        return torch.einsum("bl...,l->b...", logits.softmax(1), levels)

    def draw(self, parameters: Tensor, uniforms: Tensor) -> Tensor:
        items = max(1, CHUNK // max(1, parameters[:1].numel()))
        return torch.cat(
            [
                self._draw(p, u)
                for p, u in zip(parameters.split(items), uniforms.split(items), strict=True)
            ]
        )

    def _draw(self, parameters: Tensor, uniforms: Tensor) -> Tensor:
        cdf = self.per_channel(parameters).double().softmax(1).cumsum(1)
        # The sum of all is not quite 1, and what follows the last likely level must not be drawn.
        return (cdf <= uniforms[:, None] * cdf[:, -1:]).sum(1)
