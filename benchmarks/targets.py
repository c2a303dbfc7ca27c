"""Compares the measured rows with the floors: ``python -m benchmarks.targets``.

A line per floor, "pass" or "miss"; what was not measured is missed. Exit status 1 with a miss.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import speed_cases

from benchmarks import floors, peers, tables, words
from benchmarks.peers import OURS
from benchmarks.results import Row


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


Rows = dict[tuple[str, str], Row]  # (case, contender) -> row with a measurement


def verdicts(measured: dict[str, Rows]) -> Iterator[Verdict]:
    """One per floor, in the order of ``floors.py``."""
    for table, shares in floors.PEAK_SHARE.items():
        for case, floor in shares.items():
            share = _field(measured[table], case, OURS, "peak_share")
            yield Verdict(table, case, "of FMA peak", share, floor)
    for table, cases in floors.TIMES_OURS.items():
        for case, contenders in cases.items():
            for name, floor in contenders.items():
                row = measured[table].get((case, name))
                times = row["times_ours"][1] if row and row["times_ours"] else None
                yield Verdict(table, case, f"vs {name}", times, floor)
    search = measured["nearest_code"]
    yield from _exact(measured)
    yield from _memory(search)
    yield _all_equal(search)
    yield _flat(search)


def _exact(measured: dict[str, Rows]) -> Iterator[Verdict]:
    for table, rows in measured.items():
        for (case, name), row in rows.items():
            if name.startswith(OURS):
                wrong = row["wrong_rows"] + row["other_ties"]
                yield Verdict(table, case, f"wrong rows, {name}", wrong, 0, at_most=True)


def _memory(search: Rows) -> Iterator[Verdict]:
    for (case, name), row in search.items():
        if name == OURS:
            extra = row["extra_bytes"]
            times = None if extra is None else extra / row["given_bytes"]
            what = "extra memory, times the given"
            yield Verdict("nearest_code", case, what, times, floors.EXTRA_MEMORY, at_most=True)


def _all_equal(search: Rows) -> Verdict:
    equal, plain = (
        next(case.name for case in speed_cases.HARD_DATA if case.data == data)
        for data in ("all equal", "Gaussian")
    )
    times = [_seconds(search, case) for case in (equal, plain)]
    ratio = None if None in times else times[0] / times[1]  # type: ignore[operator]
    limit = floors.ALL_EQUAL_TIMES_PLAIN
    return Verdict("nearest_code", equal, "time, times the plain case", ratio, limit, at_most=True)


def _flat(search: Rows) -> Verdict:
    cases = speed_cases.MORE_CODES
    found = {case: _seconds(search, case.name) for case in cases}
    per_pair = [seconds / case.k for case, seconds in found.items() if seconds is not None]
    spread = max(per_pair) / min(per_pair) if len(per_pair) == len(cases) else None
    name = f"{cases[0].name} to {cases[-1].name}"
    what, limit = "time per pair, largest over smallest", floors.TIME_PER_PAIR_SPREAD
    return Verdict("nearest_code", name, what, spread, limit, at_most=True)


def _seconds(rows: Rows, case: str) -> float | None:
    seconds = _field(rows, case, OURS, "seconds")
    return None if seconds is None else seconds[1]


def _field(rows: Rows, case: str, provider: str, field: str) -> Any:
    return rows.get((case, provider), {}).get(field)


def main() -> int:
    measured = {
        table: {
            (row["case"], row["provider"]): row
            for row in tables.rows(table)
            if "skipped" not in row
        }
        for table in peers.TABLES
    }
    found = list(verdicts(measured))
    lines = [
        [
            "pass" if verdict.passed else "miss",
            verdict.table,
            verdict.case,
            verdict.what,
            "not measured" if verdict.measured is None else words.number(verdict.measured),
            f"{'at most' if verdict.at_most else 'at least'} {words.number(verdict.limit)}",
        ]
        for verdict in found
    ]
    print(words.columns(lines))
    missed = sum(not verdict.passed for verdict in found)
    print(f"{len(found) - missed} pass, {missed} missed")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
