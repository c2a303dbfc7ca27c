"""Hands samples that are taken already to pytest-benchmark, through its public interface.

Its fixture times one function after the other; ours are timed in turns. So it is given a clock
that advances by one sample per call, and arrives at the same numbers with its own statistics.
"""

from __future__ import annotations

import itertools
from typing import Any

from benchmarks.timing import Samples


class Clock:
    """What a test marked with ``benchmark(timer=...)`` reads instead of the time."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        return self._now

    def replay(self, benchmark: Any, samples: Samples) -> None:
        """Makes ``samples`` the measurement of ``benchmark``, whose timer this clock is."""
        self._now = 0.0
        durations = itertools.chain.from_iterable(
            itertools.repeat(seconds, samples.calls) for seconds in samples.seconds
        )

        def call() -> None:
            self._now += next(durations, 0.0)

        benchmark.pedantic(call, rounds=len(samples.seconds), iterations=samples.calls)
