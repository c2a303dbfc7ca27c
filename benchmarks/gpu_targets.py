"""The rows of a GPU against ``gpu_floors.py``; ``python -m benchmarks.targets --device cuda``."""

from __future__ import annotations

from collections.abc import Iterator

import speed_cases

from benchmarks import gpu_floors as floors
from benchmarks import peers
from benchmarks.peers import OURS, Provider
from benchmarks.verdicts import Rows, Verdict, exact, field


def verdicts(measured: dict[str, Rows]) -> Iterator[Verdict]:
    """One per floor, in the order of ``gpu_floors.py``, then the wrong rows of ours."""
    search = measured["nearest_code"]
    for (table, name), cases in floors.MILLISECONDS.items():
        for case, limit in cases.items():
            seconds = field(measured[table], case, name, "seconds")
            taken = None if seconds is None else 1e3 * seconds[1]
            yield Verdict(table, case, f"milliseconds, {name}", taken, limit, at_most=True)
    for case, limit in floors.TFLOPS.items():
        speed = field(search, case, OURS, "tflops")
        yield Verdict("nearest_code", case, "TFLOP/s", speed, limit)
    for case, limit in floors.TIMES_NAIVE.items():
        times = _times(search, case, floors.NAIVE)
        yield Verdict("nearest_code", case, f"vs {floors.NAIVE}", times, limit)
    for measured_case in speed_cases.GPU_SEARCH:
        yield _fastest(search, measured_case.name)
    yield from _library(measured["training_step"])
    yield from exact(measured)


def _fastest(search: Rows, case: str) -> Verdict:
    times = [_times(search, case, p.name) for p in peers.TABLES["nearest_code"] if _rival(p)]
    known = [value for value in times if value is not None]
    fastest, limit = min(known, default=None), floors.TIMES_FASTEST
    return Verdict("nearest_code", case, "vs the fastest library", fastest, limit)


def _rival(provider: Provider) -> bool:
    return "cuda" in provider.devices and not provider.ours and provider.package != "torch"


def _library(training: Rows) -> Iterator[Verdict]:
    case, name = floors.LIBRARY_CASE, floors.LIBRARY
    times = _times(training, case, name)
    yield Verdict("training_step", case, f"vs {name}", times, floors.TIMES_LIBRARY)
    ours, theirs = (field(training, case, p, "extra_bytes") for p in (OURS, name))
    share = None if None in (ours, theirs) else ours / theirs
    what, limit = f"extra memory over that of {name}", floors.MEMORY_OF_LIBRARY
    yield Verdict("training_step", case, what, share, limit, at_most=True)


def _times(rows: Rows, case: str, provider: str) -> float | None:
    times = field(rows, case, provider, "times_ours")
    return None if times is None else float(times[1])
