"""A measured value against its limit, and what targets of both kinds of device need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from benchmarks.peers import OURS
from benchmarks.results import Row

Rows = dict[tuple[str, str], Row]  # (case, contender) -> row with a measurement


class Verdict(NamedTuple):
    table: str
    case: str
    what: str
    measured: float | None
    limit: float
    at_most: bool = False

    @property
    def passed(self) -> bool:
        if self.measured is None:
            return False
        return self.measured <= self.limit if self.at_most else self.measured >= self.limit


def exact(measured: dict[str, Rows]) -> Iterator[Verdict]:
    """Nothing of ours may be wrong anywhere."""
    for table, rows in measured.items():
        for (case, name), row in rows.items():
            if name.startswith(OURS):
                wrong = row["wrong_rows"] + row["other_ties"]
                yield Verdict(table, case, f"wrong rows, {name}", wrong, 0, at_most=True)


def field(rows: Rows, case: str, provider: str, name: str) -> Any:
    return rows.get((case, provider), {}).get(name)
