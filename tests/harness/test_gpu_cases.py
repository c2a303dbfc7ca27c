"""The cases of a GPU, rehearsed with few rows on the CPU: data, contenders, rows and floors."""

from __future__ import annotations

import math
from typing import Any

import cases
import device_data
import pytest
import speed_cases
import torch
from speed_cases import SpeedCase

from benchmarks import fresh, gpu_floors, gpu_targets, peers, results
from benchmarks.laboratory import Contender, Laboratory
from benchmarks.peers import OURS
from benchmarks.timing import Effort

_CPU = torch.device("cpu")
_TINY = {
    "nearest_code": speed_cases.GPU_SEARCH,
    "training_step": speed_cases.GPU_TRAINING,
    "converted_step": speed_cases.GPU_CONVERTED,
}
_SIMPLEST = {"nearest_code": "torch N x K", "training_step": "hand-written torch"}


@pytest.mark.parametrize(
    ("table", "case"),
    [
        pytest.param(table, case.tiny(), id=f"{table}: {case.name}")
        for table, listed in _TINY.items()
        for case in listed
    ],
)
def test_ours_is_exact_and_a_row_says_what_was_judged(
    table: str, case: SpeedCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fresh, "first_call_seconds", lambda job: 1.0)
    monkeypatch.setattr(fresh, "peak_extra_bytes", lambda job: 2)
    names = (OURS, case.module or _SIMPLEST[table])
    contenders = [Contender(table, case, peers.find(table, name)) for name in names]
    laboratory = Laboratory(contenders, _CPU, torch.get_num_threads(), Effort(3, 0.01))
    where = {"machine": "m", "commit": "c", "measured": "now"}
    ours, theirs = (results.row(c, laboratory.outcome(c), where) for c in contenders)
    if case.module and "skipped" in theirs:
        pytest.skip(theirs["skipped"])
    assert (ours["wrong_rows"], ours["judged_rows"]) == (0, case.n)
    assert theirs["times_ours"][1] > 0
    speed = 2 * case.n * case.k * case.d / ours["seconds"][1] / 1e12
    assert ours["tflops"] == pytest.approx(speed, rel=1e-3)


def test_x_of_a_short_dtype_has_codes_that_it_can_hold() -> None:
    case = next(case for case in speed_cases.GPU_SEARCH if case.dtype is torch.bfloat16)
    x, codebook = case.tiny().make()
    assert (x.dtype, codebook.dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(codebook, codebook.bfloat16().float())


@pytest.mark.parametrize("colour", [True, False], ids=["colour", "grey"])
def test_windows_are_those_of_the_photographs_and_none_is_taken_twice(
    colour: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pixels that name their picture and place; the mirror image has its windows too."""
    names = torch.arange(2 * 5 * 6).reshape(2, 5, 6, 1).float()
    monkeypatch.setattr(cases, "photos", lambda: list(names.expand(2, 5, 6, 3)))
    available = 2 * 2 * 4 * 5
    rows = device_data.windows(available, 2, colour).round()
    assert rows.shape == (available, 12 if colour else 4)
    assert len(rows.unique(dim=0)) == available
    grey = rows.reshape(available, -1, 4)[:, 0]
    right, down = grey[:, 1] - grey[:, 0], grey[:, 2] - grey[:, 0]
    assert sorted(right.unique().tolist()) == [-1, 1]
    assert down.unique().tolist() == [6]


@pytest.mark.parametrize("d", device_data.WINDOWS)
def test_photo_rows_have_their_width_and_distinct_codes(d: int) -> None:
    x, codebook = device_data.photo(600, 40, d, _CPU)
    assert (x.shape, codebook.shape) == ((600, d), (40, d))
    assert len(codebook.unique(dim=0)) == 40
    if device_data.WINDOWS[d][0] ** 2 * (3 if device_data.WINDOWS[d][1] else 1) > d:
        spread = x.var(dim=0)  # principal components
        assert spread[-1] > 10 * spread[0]
        assert torch.corrcoef(x.T).fill_diagonal_(0).abs().max() < 0.1


def test_there_are_windows_enough_for_every_case() -> None:
    for case in (case for listed in _TINY.values() for case in listed):
        if case.data == "photo patches":
            size = device_data.WINDOWS[case.d][0]
            shapes = [photo.shape[:2] for photo in cases.photos()]
            assert case.n <= 2 * sum((h - size + 1) * (w - size + 1) for h, w in shapes)


def test_codes_are_means_of_the_rows_that_are_nearest_to_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device_data, "_ITERATIONS", 50)
    x, codebook = device_data.gaussian(400, 5, 3, _CPU)
    nearest = torch.cdist(x[:80], codebook).argmin(1)
    for code in range(5):
        mean = x[:80][nearest == code].mean(0)
        assert torch.allclose(codebook[code], mean, atol=1e-5)  # one row more or less shows


def _row(**fields: Any) -> dict[str, Any]:
    row = {"seconds": [1.0, 1.0, 1.0], "times_ours": [1.0, 1.0, 1.0], "tflops": 1.0}
    return row | {"wrong_rows": 0, "other_ties": 0, "extra_bytes": 10} | fields


def _verdict(table: str, case: str, what: str, rows: dict[str, Any]) -> bool:
    measured: dict[str, Any] = {name: {} for name in peers.TABLES}
    measured[table] = {(case, name): row for name, row in rows.items()}
    found = [v for v in gpu_targets.verdicts(measured) if (v.case, v.what) == (case, what)]
    return any(v.passed for v in found if v.table == table)


def test_milliseconds() -> None:
    case = "262144, 16384, 8, photo patches"
    for seconds, passed in ((0.00075, True), (0.00076, False)):
        rows = {OURS: _row(seconds=[0.0, seconds, 9.0])}
        assert _verdict("nearest_code", case, f"milliseconds, {OURS}", rows) is passed


def test_the_step_that_counts_is_the_captured_one() -> None:
    case, name = "65536, 1024, 64, photo patches", gpu_floors.IN_A_GRAPH
    fast = _row(seconds=[0.0, 0.0002, 0.0])
    assert _verdict("training_step", case, f"milliseconds, {name}", {name: fast, OURS: _row()})
    assert not _verdict("training_step", case, f"milliseconds, {name}", {OURS: fast})


def test_the_fastest_library_is_the_one_to_beat() -> None:
    case, what = "65536, 8192, 256, photo patches", "vs the fastest library"
    slow, fast, torch_ = (_row(times_ours=[0.0, t, 9.0]) for t in (3.0, 0.9, 0.1))
    assert _verdict("nearest_code", case, what, {"KeOps": slow, "torch N x K": torch_})
    assert not _verdict("nearest_code", case, what, {"KeOps": slow, "flash-kmeans": fast})


@pytest.mark.parametrize(("ours", "passed"), [(5, True), (6, False)])
def test_memory_of_a_step_is_a_twentieth_of_the_librarys(ours: int, passed: bool) -> None:
    rows = {OURS: _row(extra_bytes=ours), gpu_floors.LIBRARY: _row(extra_bytes=100)}
    what = f"extra memory over that of {gpu_floors.LIBRARY}"
    assert _verdict("training_step", gpu_floors.LIBRARY_CASE, what, rows) is passed


def test_without_rows_nothing_passes() -> None:
    found = list(gpu_targets.verdicts({name: {} for name in peers.TABLES}))
    assert found
    assert all(v.measured is None and not v.passed for v in found)
    assert all(math.isfinite(v.limit) for v in found)


def test_every_floor_is_on_a_case_and_a_contender_that_are_measured() -> None:
    names = {table: {case.name for case in listed} for table, listed in _TINY.items()}
    for (table, provider), floors in gpu_floors.MILLISECONDS.items():
        assert floors.keys() <= names[table]
        assert "cuda" in peers.find(table, provider).devices
    assert gpu_floors.TFLOPS.keys() | gpu_floors.TIMES_NAIVE.keys() <= names["nearest_code"]
    assert gpu_floors.LIBRARY_CASE in names["training_step"]
    assert peers.find("nearest_code", gpu_floors.NAIVE)
    assert peers.find("training_step", gpu_floors.LIBRARY)
