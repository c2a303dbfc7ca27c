"""The squared error: no likelihood, and it says so."""

from typing import ClassVar, NoReturn

from torch import Tensor

from vqtrain.models.levels import scaled
from vqtrain.models.likelihood.likelihood import Likelihood, NoLikelihoodError


class SquaredError(Likelihood):
    """loss = mean((parameters - e)^2) / variance, e the levels scaled to [-1, 1]; P = 1.

    A squared error is a Gaussian's exponent without its normaliser: it ranks reconstructions, and
    tells no bits.

    Args:
        levels: different values of an entry.
        variance: of the scaled data; 1 leaves the error as it is.
    """

    has_likelihood: ClassVar[bool] = False
    num_parameters = 1

    def __init__(self, levels: int, variance: float) -> None:
        super().__init__(levels)
        if not variance > 0:
            raise ValueError(f"variance must be positive, got {variance}")
        self.variance = variance

    def cost(self, parameters: Tensor, x: Tensor) -> Tensor:
        """`(B,)` squared errors, over the variance."""
        location = self.per_channel(parameters)[:, 0]
        target = scaled(x, self.levels, location.dtype)
        return (location - target).square().flatten(1).sum(1) / self.variance

    def mean(self, parameters: Tensor) -> Tensor:
        """The reconstruction, in levels."""
        location = self.per_channel(parameters)[:, 0]
        return ((location + 1) * ((self.levels - 1) / 2)).clamp(0, self.levels - 1)

    def log_prob(self, parameters: Tensor, x: Tensor) -> NoReturn:
        raise NoLikelihoodError("log_prob must be asked of a likelihood, got a squared error")

    def draw(self, parameters: Tensor, uniforms: Tensor) -> NoReturn:
        raise NoLikelihoodError("draw must be asked of a likelihood, got a squared error")
