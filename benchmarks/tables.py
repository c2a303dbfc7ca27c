"""The generated tables of README.md and docs/benchmarks.md, each from the latest rows."""

from __future__ import annotations

from collections.abc import Callable

import speed_cases

from benchmarks import peers, results, words
from benchmarks.peers import OURS
from benchmarks.reasons import REASONS
from benchmarks.results import Row

_SIZES = [case.name for case in (*speed_cases.SEARCH, *speed_cases.FEW_ROWS)]
_DATA = {case.name: case.data for case in speed_cases.HARD_DATA}
_CODES = [case.name for case in speed_cases.MORE_CODES]
_CONVERTED = {case.name: case for case in speed_cases.CONVERTED}


def search() -> str:
    """Time as a multiple of ours, one line per size."""
    return _ratios("nearest_code", "search: N, K, D", _SIZES) + _caption("nearest_code")


def residual() -> str:
    return _ratios("residual_quantize", "all levels: N, L x K, D")


def training() -> str:
    return _ratios("training_step", "training step: N, K, D") + _caption("training_step")


def converted() -> str:
    """One line per class: what its step took and needed before ``convert``, and after it."""
    by_case = words.cases(rows("converted_step"))
    lines = []
    for name, case in _CONVERTED.items():
        listed = {row["provider"]: row for row in by_case.get(name, [])}
        before, after = listed.get(case.module), listed.get(OURS)
        if before is None or after is None or "skipped" in before or "skipped" in after:
            continue
        sizes = name.removeprefix(f"{case.module}: ")
        memory = f"{words.memory(before)}, {words.memory(after)}"
        times = f"{words.number(before['times_ours'][1])}x"
        lines.append([case.module, sizes, times, memory, words.wrong(before)])
    headings = ["class", "N, K, D", "time of the original", "its extra memory, and ours"]
    table = words.markdown([*headings, "its wrong rows"], lines)
    return table + _caption("converted_step")


def wrong_rows() -> str:
    """One line per kind of data at one size."""
    by_case = words.cases(rows("nearest_code"))
    names = _providers("nearest_code", [row for case in _DATA for row in by_case.get(case, [])])
    table = [
        [data, *(_cell(by_case[case], name, _wrong) for name in names)]
        for case, data in _DATA.items()
        if case in by_case
    ]
    n, k, d = speed_cases.HARD_DATA[0][:3]
    return words.markdown([f"rows of {n} that are wrong, K = {k}, D = {d}", *names], table)


def peak() -> str:
    """How far every case is from the FMA peak, and why."""
    table = []
    for name in REASONS:
        for row in rows(name):
            if row["provider"] == OURS and "skipped" not in row:
                case = row["case"]
                reason = REASONS[name].get(case, "not yet stated")
                table.append([_title(name), case, words.share(row), reason])
    return words.markdown(["", "N, K, D", "of FMA peak", "what the rest is spent on"], table)


def codes() -> str:
    """Time per pair from few codes to many, over that with the fewest."""
    by_case = words.cases(rows("nearest_code"))
    found = [case for case in _CODES if case in by_case]
    names = _providers("nearest_code", [row for case in found for row in by_case[case]])
    first = {row["provider"]: row for row in by_case[found[0]]} if found else {}

    def per_pair(row: Row) -> str:
        seconds, least = (r["seconds"][1] / r["k"] for r in (row, first[row["provider"]]))
        return words.number(seconds / least)

    table = [
        [str(by_case[case][0]["k"]), *(_cell(by_case[case], name, per_pair) for name in names)]
        for case in found
    ]
    return words.markdown(["time per pair at K =", *names], table)


def details(device: str = "cpu") -> str:
    """Every contender of every case, with what was skipped and why."""
    parts = []
    for name in peers.TABLES:
        for case, listed in words.cases(rows(name, device)).items():
            table = words.markdown(list(words.HEADINGS), list(map(words.cells, listed)))
            parts.append(f"### {_title(name)}: {case}\n\n{table}")
    return "\n\n".join(parts) or "Not yet measured."


def gpu() -> str:
    """The same of the machine with a GPU that measured last, and what it ran."""
    listed = [row for name in peers.TABLES for row in rows(name, "cuda")]
    if not listed:
        return details("cuda")
    last = listed[-1]
    versions = [f"{key} {last[key]}" for key in ("driver", "cuda", "torch", "triton", "commit")]
    return f"{details('cuda')}\n\n{', '.join([last['machine'], *versions])}."


def rows(table: str, device: str = "cpu") -> list[Row]:
    return results.latest(results.load(table, device))


def _ratios(table: str, heading: str, cases: list[str] | None = None) -> str:
    by_case = words.cases(rows(table))
    shown = [case for case in cases or by_case if case in by_case]
    names = _providers(table, [row for case in shown for row in by_case[case]])
    others = [name for name in names if name != OURS]
    lines = [
        [
            case,
            _cell(by_case[case], OURS, words.share),
            *(_cell(by_case[case], name, _times_and_wrong) for name in others),
        ]
        for case in shown
    ]
    return words.markdown([heading, f"{OURS}: of FMA peak", *others], lines)


def _providers(table: str, shown: list[Row]) -> list[str]:
    """Contenders that have a row, in the order of the registry, without our single levels."""
    present = {row["provider"] for row in shown}
    names = [provider.name for provider in peers.TABLES[table]]
    return [n for n in names if n in present and (n == OURS or not n.startswith(OURS))]


def _cell(listed: list[Row], provider: str, text: Callable[[Row], str]) -> str:
    row = next((row for row in listed if row["provider"] == provider), None)
    if row is None:
        return "not measured"
    return str(row["skipped"]) if "skipped" in row else text(row)


def _times_and_wrong(row: Row) -> str:
    times = f"{words.number(row['times_ours'][1])}x"
    return f"{times}, {row['wrong_rows']} wrong" if row["wrong_rows"] else times


def _wrong(row: Row) -> str:
    return str(row["wrong_rows"])


def _title(table: str) -> str:
    return table.replace("_", " ")


def _caption(table: str) -> str:
    return words.caption(rows(table))
