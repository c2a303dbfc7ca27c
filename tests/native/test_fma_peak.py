"""The yardstick of the benchmarks: no faster than silicon, so nothing was optimised away."""

from __future__ import annotations

import time

import pytest
from backends import isa_levels, native_core

pytestmark = pytest.mark.skipif(native_core() is None, reason="native is not built")

# float32 lanes of the widest vector of a level.
_LANES = {"portable": 4, "avx2": 8, "avx512": 16}


@pytest.mark.parametrize("level", isa_levels())
def test_peak_is_what_a_core_can_do_and_not_more(level: str) -> None:
    core = native_core()
    assert core is not None
    before = core.isa()
    core.force_isa(level)
    try:
        # The best of several: other processes may have the core for one of them.
        peak = max(core.fma_peak(1, 0.01) for _ in range(8))
    finally:
        core.force_isa(before)
    # Two units, two operations each, 6 GHz; and not a tenth of one unit at 1 GHz.
    assert 0.1e9 * 2 * _LANES[level] < peak < 6e9 * 4 * _LANES[level]


def test_it_runs_for_the_seconds_asked_for() -> None:
    core = native_core()
    assert core is not None
    started = time.perf_counter()
    core.fma_peak(2, 0.05)
    assert 0.05 <= time.perf_counter() - started < 1.0


@pytest.mark.parametrize(("threads", "seconds"), [(0, 0.01), (1, 0.0), (1, float("nan"))])
def test_bad_arguments_are_named(threads: int, seconds: float) -> None:
    core = native_core()
    assert core is not None
    with pytest.raises(ValueError, match=r"^(threads|seconds) must be positive, got"):
        core.fma_peak(threads, seconds)
