"""The search alone: sizes, few rows, and data that is hard to get right.

``make bench`` for the short set, ``make bench-full`` for everything; ``make bench-gpu`` has cases
of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import speed_cases
from speed_cases import SpeedCase

from benchmarks.laboratory import Contender
from benchmarks.peers import Provider

TABLE = "nearest_code"
CASES = (
    *speed_cases.SEARCH,
    *speed_cases.FEW_ROWS,
    *speed_cases.HARD_DATA,
    *speed_cases.GPU_SEARCH,
)


def takes_part(case: SpeedCase, provider: Provider) -> bool:
    return provider.largest is None or case.n * case.k <= provider.largest


def test_nearest_code(contender: Contender, measured: Callable[[Contender], None]) -> None:
    measured(contender)
