"""What a fit is given and what it gives back: the loss, what validation found, the result."""

from dataclasses import dataclass, field
from typing import NamedTuple

from torch import nn


class Objective(nn.Module):
    """What a step minimises, as a module: ranks average the gradients of a module's forward.

    A subclass has `forward`, which takes a batch and returns the loss, a 0-d mean over it, and a
    dictionary of further 0-d means to log.

    Args:
        model: what is trained and kept; has `description()`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


@dataclass(frozen=True)
class Validation:
    """What a validation finds.

    Attributes:
        value: to minimise.
        scalars: further numbers for the log.
        warnings: lines for people.
    """

    value: float
    scalars: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class Fit(NamedTuple):
    """Result of a fit.

    Attributes:
        best_step: the step that was kept.
        best_value: its validation value.
        last_step: the last step made.
        seconds_before: wall time of the processes that had worked on it before this one.
    """

    best_step: int
    best_value: float
    last_step: int
    seconds_before: float = 0.0

    def summary(self, unit: str) -> str:
        return (
            f"kept step {self.best_step} of {self.last_step}: "
            f"{self.best_value:.3f} {unit} on validation"
        )
