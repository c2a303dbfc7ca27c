"""A mean over items and how sure it is: what every reported number that is a mean is made of."""

import math
from typing import NamedTuple

from torch import Tensor


class Estimate(NamedTuple):
    """A mean and its standard error over items; None where one item says nothing of the spread."""

    mean: float
    standard_error: float | None


def estimate(values: Tensor) -> Estimate:
    """Of `(N,)` values, N at least 1, one per item."""
    values = values.double()
    spread = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else None
    return Estimate(values.mean().item(), spread)
