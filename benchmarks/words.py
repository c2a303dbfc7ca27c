"""How rows are written in tables, on the terminal and in documents."""

from __future__ import annotations

from benchmarks.peers import OURS
from benchmarks.results import Row

HEADINGS = (
    "contender",
    "times ours (quartiles)",
    "of FMA peak, or TFLOP/s",
    "wrong rows",
    "extra memory",
    "first call",
    "median, samples",
)


def cells(row: Row) -> list[str]:
    """A row under HEADINGS; a contender without a measurement shows its reason."""
    name = row["provider"] + "".join(f", {key} {value}" for key, value in settings(row).items())
    if "skipped" in row:
        return [name, row["skipped"], *[""] * (len(HEADINGS) - 2)]
    return [name, ratio(row), share(row), wrong(row), memory(row), first_call(row), median(row)]


def settings(row: Row) -> Row:
    found: Row = row.get("settings") or {}
    return found


def ratio(row: Row) -> str:
    if row["times_ours"] is None:
        return "ours not measured"
    if row["provider"] == OURS:
        return "1"
    low, middle, high = row["times_ours"]
    return f"{number(middle)}x ({number(low)} to {number(high)})"


def share(row: Row) -> str:
    if row["peak_share"] is not None:
        return f"{row['peak_share']:.0%}"
    speed = row.get("tflops")
    return "not measured" if speed is None else f"{number(speed)} TFLOP/s"


def wrong(row: Row) -> str:
    ties = f", {row['other_ties']} other ties" if row["other_ties"] else ""
    return f"{row['wrong_rows']} of {row.get('judged_rows', row['n'])}{ties}"


def memory(row: Row) -> str:
    extra = row["extra_bytes"]
    return "not measured" if extra is None else f"{extra / 1e6:.1f} MB"


def first_call(row: Row) -> str:
    return duration(row["first_call_seconds"])


def median(row: Row) -> str:
    return f"{duration(row['seconds'][1])}, {row['samples']}"


def duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{number(seconds / size)} {unit}"
    return f"{number(seconds * 1e6)} us"


def number(value: float) -> str:
    """Three digits, two from 10 to 99, none after the point above."""
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def cases(rows: list[Row]) -> dict[str, list[Row]]:
    """Rows by case, in the order in which the cases come first."""
    by_case: dict[str, list[Row]] = {}
    for row in rows:
        by_case.setdefault(row["case"], []).append(row)
    return by_case


def caption(rows: list[Row]) -> str:
    """Where rows of one machine are from; empty without any."""
    if not rows:
        return ""
    commits = ", ".join(dict.fromkeys(row["commit"] for row in rows))
    return f"\n\n{rows[-1]['machine']}, torch {rows[-1]['torch']}, commit {commits}."


def columns(table: list[list[str]]) -> str:
    """Cells in aligned columns."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = ("  ".join(map(str.ljust, line, widths)).rstrip() for line in table)
    return "\n".join(lines)


def markdown(headings: list[str], table: list[list[str]]) -> str:
    if not table:
        return "Not yet measured."
    lines = [headings, ["---"] * len(headings), *table]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
