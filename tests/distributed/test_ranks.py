"""One codebook over several processes: every check of the worker scripts, on every rank."""

from __future__ import annotations

import pytest
from processes import assert_passed, checks

# A launch costs more than most scripts: one per number of ranks.
SCRIPTS = {
    2: ("plain", "ddp", "fsdp", "prepared", "compiled", "vqp", "rosinality"),
    4: ("plain", "ddp", "state"),
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
def test_ranks(ranks: int, check: str) -> None:
    assert_passed(ranks, SCRIPTS[ranks], check)
