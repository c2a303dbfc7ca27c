"""The search from 1024 to 262144 codes: the time per pair should not depend on their number."""

from __future__ import annotations

from collections.abc import Callable

import speed_cases
from speed_cases import SpeedCase

from benchmarks.laboratory import Contender
from benchmarks.peers import OURS, Provider

TABLE = "nearest_code"
CASES = speed_cases.MORE_CODES


def takes_part(case: SpeedCase, provider: Provider) -> bool:
    return provider.name in (OURS, "torch chunked", "faiss IndexFlatL2")


def test_more_codes(contender: Contender, measured: Callable[[Contender], None]) -> None:
    measured(contender)
