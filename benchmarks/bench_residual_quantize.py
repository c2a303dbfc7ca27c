"""All levels of a residual quantizer, without training; the step is with the other steps."""

from __future__ import annotations

from collections.abc import Callable

import speed_cases
from speed_cases import SpeedCase

from benchmarks.laboratory import Contender
from benchmarks.peers import Provider

TABLE = "residual_quantize"
CASES = speed_cases.RESIDUAL


def takes_part(case: SpeedCase, provider: Provider) -> bool:
    return True


def test_residual_quantize(contender: Contender, measured: Callable[[Contender], None]) -> None:
    measured(contender)
