"""The sampling benchmark: what it times, that it notices other codes, and what it must show."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks import code_sampling, floors
from benchmarks.code_sampling import CACHED, CASES, PLAIN
from benchmarks.timing import Effort, Samples
from vqtrain.priors import CodeSpace, GatedPixelCNN, PixelCNNConfig

CASE = CASES[0].tiny()
WHERE = {"machine": "m", "commit": "1", "measured": "2026-01", "torch": "2"}


def test_both_ways_are_timed_and_every_code_is_judged() -> None:
    measured = code_sampling.measure(CASE, torch.device("cpu"), Effort(rounds=3, seconds=0.1))
    assert (measured.timed, measured.judged, measured.other) == (4, 16, 0)
    assert len(measured.cached.seconds) == len(measured.plain.seconds) == 3


@torch.no_grad()
def test_a_code_that_the_plain_forward_would_not_draw_is_counted() -> None:
    torch.manual_seed(0)
    model = GatedPixelCNN(PixelCNNConfig(width=8, layers=2), CodeSpace(16, (4, 4))).eval()
    labels = torch.zeros(2, dtype=torch.int64)
    codes = model.generate(labels, torch.Generator().manual_seed(3))
    codes[1, 3, 3] = (codes[1, 3, 3] + 1) % 16  # the last one, which no other code follows
    assert code_sampling.others(model, codes, labels, torch.Generator().manual_seed(3)) == 1


def _rows(cached: list[float], plain: list[float], other: int = 0) -> dict[Any, Any]:
    case = CASES[0]
    measured = code_sampling.Measured(Samples(cached, 1), Samples(plain, 1), 32, 1024, other)
    rows = code_sampling.rows(case, measured, WHERE)
    return {(row["case"], row["provider"]): row for row in rows}


def test_times_are_the_median_of_ratios_within_rounds() -> None:
    rows = _rows([1.0, 2.0, 4.0], [50.0, 80.0, 400.0])
    assert rows[CASES[0].name, PLAIN]["times_ours"] == [45.0, 50.0, 75.0]
    assert rows[CASES[0].name, CACHED]["seconds"] == [1.5, 2.0, 3.0]


@pytest.mark.parametrize(("times", "other", "passed"), [(40, 0, 2), (39.9, 0, 1), (40, 1, 1)])
def test_verdicts_on_speed_and_on_codes(times: float, other: int, passed: int) -> None:
    found = list(code_sampling.verdicts(_rows([1.0] * 3, [times] * 3, other)))
    assert sum(verdict.passed for verdict in found) == passed


def test_what_was_not_measured_is_missed_and_every_floor_is_on_a_case() -> None:
    assert not any(verdict.passed for verdict in code_sampling.verdicts({}))
    assert floors.TIMES_CACHED_SAMPLING.keys() == {case.name for case in CASES}
