"""pytest-benchmark arrives at the samples that were taken in turns."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.replay import Clock
from benchmarks.timing import Samples

_CLOCK = Clock()


@pytest.mark.benchmark(timer=_CLOCK)
@pytest.mark.parametrize("calls", [1, 7])
def test_its_statistics_are_those_of_the_samples(calls: int, benchmark: Any) -> None:
    samples = Samples([0.25, 1.0, 0.5, 2.0], calls)
    _CLOCK.replay(benchmark, samples)
    if benchmark.disabled:
        pytest.skip("pytest-benchmark is switched off in this run")
    found = benchmark.stats.stats
    assert found.data == samples.seconds
    assert (found.min, found.median, found.rounds) == (0.25, 0.75, 4)
