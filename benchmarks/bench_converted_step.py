"""The step of another library's quantizer, before and after ``vqkernels.convert``."""

from __future__ import annotations

from collections.abc import Callable

import speed_cases
from speed_cases import SpeedCase

from benchmarks.laboratory import Contender
from benchmarks.peers import Provider

TABLE = "converted_step"
CASES = (*speed_cases.CONVERTED, *speed_cases.GPU_CONVERTED)


def takes_part(case: SpeedCase, provider: Provider) -> bool:
    return provider.ours or provider.name == case.module


def test_converted_step(contender: Contender, measured: Callable[[Contender], None]) -> None:
    measured(contender)
