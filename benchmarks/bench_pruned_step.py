"""A whole training step that leaves codes out, its codebook moving, against one on all codes."""

from __future__ import annotations

from collections.abc import Callable

import speed_cases
from speed_cases import SpeedCase

from benchmarks.laboratory import Contender
from benchmarks.peers import Provider

TABLE = "pruned_step"
CASES = speed_cases.PRUNED_TRAINING


def takes_part(case: SpeedCase, provider: Provider) -> bool:
    return True


def test_pruned_step(contender: Contender, measured: Callable[[Contender], None]) -> None:
    measured(contender)
