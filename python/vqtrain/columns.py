"""Numbers of metrics as cells of a table: what pages and documents share."""

from typing import Any, NamedTuple


class Column(NamedTuple):
    """One number of the metrics: heading, key, factor and digits after the point."""

    name: str
    key: str
    scale: float = 1.0
    digits: int = 3

    def cell(self, value: float | None, error: float | None = None) -> str:
        """A value with its standard error, if it has one; empty for what was not measured."""
        if value is None:
            return ""
        text = f"{value * self.scale:.{self.digits}f}"
        return text if error is None else f"{text} \u00b1 {error * self.scale:.{self.digits}f}"

    def cell_of(self, numbers: dict[str, dict[str, Any]]) -> str:
        """The cell of a row of a table: numbers by key, each with `mean` and `standard_error`."""
        found = numbers.get(self.key, {})
        return self.cell(found.get("mean"), found.get("standard_error"))
