"""What ``convert`` and ``revert`` did to every quantizer that they met."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Conversion:
    """One module.

    Attributes:
        path: where it is in the model; "" is the model itself.
        old: import path of its class.
        new: import path of the class that has taken its place; None if it was left.
        reason: why it was left; None if it was not.
    """

    path: str
    old: str
    new: str | None = None
    reason: str | None = None

    def __str__(self) -> str:
        fate = f"left: {self.reason}" if self.new is None else f"now {self.new}"
        return f"{self.path or '(the model)'}: {self.old}, {fate}"


@dataclass(frozen=True)
class Report:
    """Every module that was replaced, or that looks like a quantizer and was left.

    Printed, it has one line per module.

    Attributes:
        entries: in the order of ``model.named_modules()``.
    """

    entries: tuple[Conversion, ...]

    @property
    def converted(self) -> tuple[Conversion, ...]:
        return tuple(entry for entry in self.entries if entry.new is not None)

    @property
    def left(self) -> tuple[Conversion, ...]:
        return tuple(entry for entry in self.entries if entry.new is None)

    def __iter__(self) -> Iterator[Conversion]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __str__(self) -> str:
        return "\n".join(map(str, self.entries)) or "no quantizer found"
