"""What every likelihood is: a probability of each level, from a decoder's output."""

from typing import ClassVar

from torch import Tensor, nn


class NoLikelihoodError(RuntimeError):
    """Bits were asked of a model that defines no probability of its data."""


class Likelihood(nn.Module):
    """p(x = l) of each entry, independently given the codes; the levels' probabilities sum to one.

    Args:
        levels: different values of an entry.

    Attributes:
        num_parameters: P, decoder channels per channel of the signal.
        has_likelihood: whether it can tell bits.
    """

    has_likelihood: ClassVar[bool] = True
    num_parameters: int

    def __init__(self, levels: int) -> None:
        super().__init__()
        if levels < 2:
            raise ValueError(f"levels must be at least 2, got {levels}")
        self.levels = levels

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """Log probability of every entry, in nats.

        Args:
            parameters: `(B, C * P, *size)` floating; the P of a channel lie together.
            x: `(B, C, *size)` integer levels.

        Returns:
            `(B, C, *size)`, at most 0; in float32, or float64 for float64 parameters.

        Raises:
            NoLikelihoodError: if there are no probabilities.
        """
        raise NotImplementedError

    def mean(self, parameters: Tensor) -> Tensor:
        """Expected level of every entry, `(B, C, *size)` in `[0, levels - 1]`."""
        raise NotImplementedError

    def draw(self, parameters: Tensor, uniforms: Tensor) -> Tensor:
        """Draws every entry by inverse CDF, in float64.

        Args:
            parameters: `(B, C * P, *size)`.
            uniforms: `(B, C, *size)` float64 in [0, 1).

        Returns:
            `(B, C, *size)` int64 levels.

        Raises:
            NoLikelihoodError: if there are no probabilities.
        """
        raise NotImplementedError

    def cost(self, parameters: Tensor, x: Tensor) -> Tensor:
        """What training minimises: `(B,)` nats per item."""
        return -self.log_prob(parameters, x).flatten(1).sum(1)

    def loss(self, parameters: Tensor, x: Tensor) -> Tensor:
        """The same as one number: 0-d, per dimension."""
        return self.cost(parameters, x).mean() / x[0].numel()

    def per_channel(self, parameters: Tensor) -> Tensor:
        """`(B, C * P, *size)` to `(B, P, C, *size)`, in float32 at least."""
        if parameters.shape[1] % self.num_parameters:
            raise ValueError(
                f"parameters must have a multiple of {self.num_parameters} channels, "
                f"got {parameters.shape[1]}"
            )
        if parameters.element_size() < 4:  # half precision cannot tell neighbouring levels apart
            parameters = parameters.float()
        return parameters.unflatten(1, (-1, self.num_parameters)).transpose(1, 2)
