"""The tables and verdicts of the search that leaves codes out; its rows are the laboratory's.

A case is shown once all its contenders have a measurement.
"""

from __future__ import annotations

from collections.abc import Iterator

import speed_cases

from benchmarks import floors, peers, tables, words
from benchmarks.peers import OURS
from benchmarks.results import Row
from benchmarks.verdicts import Rows, Verdict, field

SEARCH, STEP, LATENTS = "pruned_search", "pruned_step", "pruned_latents"
LATENTS_HEADINGS = ["latents: N, K, D", "visited", OURS, "all codes", "wrong rows"]
DENSE, FAISS = f"{OURS} dense", "faiss IndexFlatL2"
PREPARE, MOVED = f"{OURS} prepare", f"{OURS} moved"
GROWING = [case.name for case in speed_cases.GROWING]
_CASES = [*(case.name for case in speed_cases.PRUNED), GROWING[-1]]
_STEPS = [case.name for case in speed_cases.PRUNED_TRAINING]


def search() -> str:
    """What the search looks at, its time, and how long others take."""
    lines = []
    for case, found in _measured(SEARCH, _CASES).items():
        ours = found[OURS]
        at_peak = 2 * ours["n"] * ours["k"] * ours["d"] / ours["peak_flops"][1]
        peak = f"{words.duration(at_peak)}, {words.number(ours['peak_share'])}x"
        others = [peak, _times(found[DENSE]), _times(found[FAISS])]
        lines.append([case, _visited(ours), _seconds(ours), *others, words.wrong(ours)])
    others = ["brute force at the FMA peak", "all codes", FAISS]
    table = words.markdown(["N, K, D", "visited", OURS, *others, "wrong rows"], lines)
    return table + words.caption(tables.rows(SEARCH))


def upkeep() -> str:
    """What the cells of a codebook take, beside one search in all of its codes."""
    lines = []
    for case, found in _measured(SEARCH, _CASES).items():
        ours, dense, prepare, moved = (
            found[name]["seconds"][1] for name in (OURS, DENSE, PREPARE, MOVED)
        )
        taken = [f"{words.duration(t)}, {t / dense:.1%}" for t in (prepare, moved - ours)]
        lines.append([case, words.duration(dense), *taken])
    return words.markdown(["N, K, D", "all codes", "prepare", "refresh"], lines)


def growth() -> str:
    """Microseconds per row from few codes to many."""
    lines = [
        [str(found[OURS]["k"]), _visited(found[OURS])]
        + [words.number(_per_row(found[name])) for name in (OURS, DENSE, FAISS)]
        for found in _measured(SEARCH, GROWING).values()
    ]
    return words.markdown(["us per row at K =", "visited", OURS, "all codes", FAISS], lines)


def curves() -> dict[str, list[tuple[int, float]]]:
    """Contender -> (K, microseconds per row), for the picture; empty before the first run."""
    measured = _measured(SEARCH, GROWING).values()
    if not measured:
        return {}
    return {
        name: [(found[name]["k"], _per_row(found[name])) for found in measured]
        for name in (OURS, DENSE, FAISS)
    }


def step() -> str:
    """A training step, and the same one on all codes."""
    lines = [
        [case, _seconds(found[OURS]), _times(found[DENSE])]
        for case, found in _measured(STEP, _STEPS).items()
    ]
    table = words.markdown(["N, K, D", OURS, "all codes"], lines)
    return table + words.caption(tables.rows(STEP))


def latents() -> str:
    """One line per epoch of a tokenizer's training."""
    listed = tables.rows(LATENTS)
    return words.markdown(LATENTS_HEADINGS, latents_lines(listed)) + words.caption(listed)


def latents_lines(listed: list[Row]) -> list[list[str]]:
    """Under LATENTS_HEADINGS, rows of both contenders by case."""
    return [
        [case, _visited(ours), _seconds(ours), _times(dense), words.wrong(ours)]
        for case, (ours, dense) in words.cases(listed).items()
    ]


def verdicts(measured: Rows) -> Iterator[Verdict]:
    """How the time grows with the codes, and what a codebook that moves costs."""
    few, many = (field(measured, case, OURS, "seconds") for case in (GROWING[0], GROWING[-1]))
    grown = many[1] / few[1] if few and many else None
    name, limit = f"{GROWING[0]} to {GROWING[-1]}", floors.TIME_PER_ROW_GROWTH
    yield Verdict(SEARCH, name, "time per row", grown, limit, at_most=True)
    for case in speed_cases.PRUNED:
        ours, dense, moved = (
            field(measured, case.name, name, "seconds") for name in (OURS, DENSE, MOVED)
        )
        share = (moved[1] - ours[1]) / dense[1] if ours and dense and moved else None
        what, limit = "refresh, of a search in all codes", floors.REFRESH_SHARE
        yield Verdict(SEARCH, case.name, what, share, limit, at_most=True)


def _measured(table: str, cases: list[str]) -> dict[str, dict[str, Row]]:
    """By case, the rows by contender."""
    by_case = words.cases([row for row in tables.rows(table) if "skipped" not in row])
    found = {case: {row["provider"]: row for row in by_case.get(case, [])} for case in cases}
    wanted = {provider.name for provider in peers.TABLES[table]}
    return {case: rows for case, rows in found.items() if rows.keys() >= wanted}


def _seconds(row: Row) -> str:
    return words.duration(row["seconds"][1])


def _times(row: Row) -> str:
    wrong = f", {row['wrong_rows']} wrong" if row["wrong_rows"] else ""
    return f"{_seconds(row)}, {words.number(row['times_ours'][1])}x{wrong}"


def _per_row(row: Row) -> float:
    return float(row["seconds"][1]) / row["n"] * 1e6


def _visited(row: Row) -> str:
    share = row["visited_share"]
    return "all" if share is None else f"{share:.2%}"
