"""Rules that read what an item shows, for data sets whose items are made from known factors."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from vqtrain.data import shapes, tones

Factors = tuple[Tensor, ...]


class Rule(NamedTuple):
    """How the factors of a class are read from an item.

    Attributes:
        factors: names of the factors.
        read: `(n, C, *size)` levels, integer or floating, to an `(n,)` int64 tensor per factor.
        expected: `(n,)` labels to what `read` should find.
    """

    factors: tuple[str, ...]
    read: Callable[[Tensor], Factors]
    expected: Callable[[Tensor], Factors]

    def accuracy(self, x: Tensor, labels: Tensor) -> dict[str, float]:
        """Share of items whose factor is read as the label says, for each factor."""
        pairs = zip(self.factors, self.read(x), self.expected(labels), strict=True)
        return {name: (got == want).double().mean().item() for name, got, want in pairs}


# By the name of the data set.
RULES = {
    "shapes": Rule(("colour", "shape"), shapes.read_shapes, shapes.factors_of),
    "tones": Rule(("note", "instrument"), tones.read_tones, tones.factors_of),
}
