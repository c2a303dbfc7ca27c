"""Compares the measured rows with the floors: ``python -m benchmarks.targets``.

A line per floor, "pass" or "miss"; what was not measured counts as missed. Exit status 1 with a
miss. ``--device cuda``: the rows and floors of a GPU.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

import speed_cases

from benchmarks import code_sampling, floors, gpu_targets, peers, pipeline, pruning, tables, words
from benchmarks.peers import OURS
from benchmarks.verdicts import Rows, Verdict, exact, field


def verdicts(measured: dict[str, Rows]) -> Iterator[Verdict]:
    """One per floor, in the order of ``floors.py``."""
    for table, shares in floors.PEAK_SHARE.items():
        for case, floor in shares.items():
            share = field(measured[table], case, OURS, "peak_share")
            yield Verdict(table, case, "of FMA peak", share, floor)
    for table, cases in floors.TIMES_OURS.items():
        for case, contenders in cases.items():
            for name, floor in contenders.items():
                row = measured[table].get((case, name))
                times = row["times_ours"][1] if row and row["times_ours"] else None
                yield Verdict(table, case, f"vs {name}", times, floor)
    search = measured["nearest_code"]
    yield from exact(measured)
    yield from _memory(search)
    yield _all_equal(search)
    yield _flat(search)
    yield from pruning.verdicts(measured[pruning.SEARCH])


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
    seconds = field(rows, case, OURS, "seconds")
    return None if seconds is None else seconds[1]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    device = parser.parse_args(argv).device
    measured = {table: _measured(table, device) for table in peers.TABLES}
    if device == "cuda":
        found = list(gpu_targets.verdicts(measured))
    else:
        sampling = code_sampling.verdicts(_measured(code_sampling.TABLE, device))
        found = [*verdicts(measured), *sampling, *pipeline.verdicts()]
    print(words.columns(list(map(_line, found))))
    missed = sum(not verdict.passed for verdict in found)
    print(f"{len(found) - missed} pass, {missed} missed")
    return int(missed > 0)


def _measured(table: str, device: str) -> Rows:
    return {
        (row["case"], row["provider"]): row
        for row in tables.rows(table, device)
        if "skipped" not in row
    }


def _line(verdict: Verdict) -> list[str]:
    unknown = verdict.measured is None
    return [
        "?" if unknown else "pass" if verdict.passed else "miss",
        verdict.table,
        verdict.case,
        verdict.what,
        "not yet measured" if unknown else words.number(verdict.measured or 0),
        f"{'at most' if verdict.at_most else 'at least'} {words.number(verdict.limit)}",
    ]


if __name__ == "__main__":
    sys.exit(main())
