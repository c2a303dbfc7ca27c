"""Every measured case says what keeps it from the peak."""

from __future__ import annotations

import speed_cases

from benchmarks.reasons import REASONS


def test_every_case_has_its_reason_and_every_reason_its_case() -> None:
    search = (*speed_cases.SEARCH, *speed_cases.FEW_ROWS, *speed_cases.HARD_DATA)
    cases = {
        "nearest_code": (*search, *speed_cases.MORE_CODES),
        "residual_quantize": speed_cases.RESIDUAL,
        "training_step": speed_cases.TRAINING,
        "converted_step": speed_cases.CONVERTED,
    }
    assert {table: set(given) for table, given in REASONS.items()} == {
        table: {case.name for case in listed} for table, listed in cases.items()
    }
