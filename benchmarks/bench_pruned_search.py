"""The search that leaves codes out, against all codes, faiss and the FMA peak.

Also what its cells cost: made once, and brought up to date when the codebook has moved.
``make bench-prune`` runs this and ``bench_pruned_step.py``.
"""

from __future__ import annotations

from collections.abc import Callable

import speed_cases
from speed_cases import SpeedCase

from benchmarks.laboratory import Contender
from benchmarks.peers import Provider

TABLE = "pruned_search"
CASES = (*speed_cases.PRUNED, *speed_cases.GROWING)


def takes_part(case: SpeedCase, provider: Provider) -> bool:
    return True


def test_pruned_search(contender: Contender, measured: Callable[[Contender], None]) -> None:
    measured(contender)
