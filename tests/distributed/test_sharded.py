"""A codebook split over several processes: every check of the worker scripts, on every rank."""

from __future__ import annotations

import pytest
from processes import assert_passed, checks

# A launch costs more than most scripts: one per number of ranks.
SCRIPTS = {
    2: ("sharded", "sharded_state", "sharded_compiled"),
    4: ("sharded", "sharded_state", "sharded_large"),
}


@pytest.mark.parametrize(
    ("ranks", "check"),
    [
        pytest.param(ranks, f"{script}.{check}", id=f"{ranks}-{script}-{check}")
        for ranks, scripts in SCRIPTS.items()
        for script in scripts
        for check in checks(script)
    ],
)
def test_sharded(ranks: int, check: str) -> None:
    assert_passed(ranks, SCRIPTS[ranks], check)
