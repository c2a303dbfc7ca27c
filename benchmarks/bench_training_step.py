"""A whole training step of the quantizer: forward, backward, statistics, EMA."""

from __future__ import annotations

from collections.abc import Callable

import speed_cases
from speed_cases import SpeedCase

from benchmarks.laboratory import Contender
from benchmarks.peers import Provider

TABLE = "training_step"
CASES = (*speed_cases.TRAINING, *speed_cases.GPU_TRAINING)


def takes_part(case: SpeedCase, provider: Provider) -> bool:
    return True


def test_training_step(contender: Contender, measured: Callable[[Contender], None]) -> None:
    measured(contender)
