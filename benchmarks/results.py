"""The files of keyed rows that tables, plots and verdicts are made from."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.laboratory import Contender, Outcome
from benchmarks.machine import ROOT
from benchmarks.timing import Quartiles, quartiles

FOLDER = ROOT / "benchmarks" / "results"
Row = dict[str, Any]
_KEY = ("case", "provider", "machine", "commit")


def row(contender: Contender, outcome: Outcome, where: Row) -> Row:
    """One contender on one case; ``where`` holds machine, commit and what else a run shares."""
    case, provider = contender.case, contender.provider
    made: Row = {"case": case.name, "provider": provider.name, **where}
    made |= {"n": case.n, "k": case.k, "d": case.d, "data": case.data}
    if outcome.samples is None:
        return {**made, "skipped": outcome.reason}
    seconds = quartiles(outcome.samples.seconds)
    speed = case.operations / seconds.median
    outputs = 12 * case.n  # an int64 index and a float32 distance per row
    given = case.dtype.itemsize * case.n * case.d + 4 * case.levels * case.k * case.d
    return {
        **made,
        "version": provider.version(),
        "settings": outcome.settings,
        **outcome.facts,
        "seconds": rounded(seconds),
        "samples": len(outcome.samples.seconds),
        "calls_per_sample": outcome.samples.calls,
        "times_ours": rounded(outcome.times_ours),
        "peak_flops": rounded(outcome.peak),
        "peak_share": outcome.peak and _short(speed / outcome.peak.median),
        "tflops": _short(speed / 1e12) if provider.searches else None,
        "judged_rows": outcome.judged,
        "wrong_rows": outcome.wrong and outcome.wrong.rows,
        "other_ties": outcome.wrong and outcome.wrong.ties,
        "extra_bytes": outcome.extra_bytes,
        "given_bytes": given + outputs,
        "first_call_seconds": outcome.first_call and _short(outcome.first_call),
    }


def merge(old: Iterable[Row], new: Iterable[Row]) -> list[Row]:
    """A new row replaces the one with its key, in its place; the others are added at the end."""
    merged = {_key(row): row for row in old}
    merged.update((_key(row), row) for row in new)
    return list(merged.values())


def load(table: str, device: str, folder: Path = FOLDER) -> list[Row]:
    """All rows of a table on a kind of device; none before the first run."""
    path = _path(table, device, folder)
    if not path.exists():
        return []
    rows: list[Row] = json.loads(path.read_text())
    return rows


def save(table: str, device: str, new: Iterable[Row], folder: Path = FOLDER) -> None:
    """Merges rows into a table's file, one row a line."""
    rows = merge(load(table, device, folder), new)
    folder.mkdir(parents=True, exist_ok=True)
    text = ",\n".join(json.dumps(row) for row in rows)
    write(_path(table, device, folder), f"[\n{text}\n]\n")


def write(path: Path, text: str) -> None:
    """All or nothing: whoever reads ``path`` finds the old text or the new one, never a part."""
    unfinished = path.with_name(path.name + ".tmp")
    with unfinished.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def latest(rows: Iterable[Row]) -> list[Row]:
    """The rows of the machine that measured last, of every case those of its last commit there."""
    ordered = sorted(rows, key=lambda row: str(row["measured"]))
    here = [row for row in ordered if row["machine"] == ordered[-1]["machine"]]
    commits = {row["case"]: row["commit"] for row in here}
    return [row for row in here if row["commit"] == commits[row["case"]]]


def _path(table: str, device: str, folder: Path) -> Path:
    return folder / f"{table}-{device}.json"


def _key(row: Row) -> tuple[str, ...]:
    return tuple(row[field] for field in _KEY)


def rounded(values: Quartiles | None) -> list[float] | None:
    """Quartiles in four digits."""
    return None if values is None else [_short(value) for value in values]


def _short(value: float) -> float:
    return float(f"{value:.4g}")
