"""Verdicts: what is compared with which floor, and that what is missing is missed."""

from __future__ import annotations

from typing import Any

import pytest
import speed_cases

from benchmarks import floors, peers, targets
from benchmarks.peers import OURS

_EQUAL, _PLAIN = "16384, 1024, 64, all equal", "16384, 1024, 64"


def _row(**fields: Any) -> dict[str, Any]:
    row = {"seconds": [1.0, 1.0, 1.0], "times_ours": [1.0, 1.0, 1.0], "peak_share": 0.9}
    row |= {"wrong_rows": 0, "other_ties": 0, "extra_bytes": 10, "given_bytes": 10}
    return row | fields


def _verdict(what: str, case: str, rows: dict[tuple[str, str], Any]) -> targets.Verdict:
    measured = {table: {} for table in peers.TABLES} | {"nearest_code": rows}
    found = [v for v in targets.verdicts(measured) if (v.what, v.case) == (what, case)]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(("share", "passed"), [(0.75, True), (0.7499, False)])
def test_share_of_the_peak(share: float, passed: bool) -> None:
    rows = {("65536, 1024, 64", OURS): _row(peak_share=share)}
    assert _verdict("of FMA peak", "65536, 1024, 64", rows).passed is passed


@pytest.mark.parametrize(("times", "passed"), [(2.5, True), (2.49, False)])
def test_times_ours_is_the_median(times: float, passed: bool) -> None:
    rows = {("65536, 1024, 64", "faiss IndexFlatL2"): _row(times_ours=[0.0, times, 99.0])}
    assert _verdict("vs faiss IndexFlatL2", "65536, 1024, 64", rows).passed is passed


@pytest.mark.parametrize("field", ["wrong_rows", "other_ties"])
def test_one_wrong_row_or_tie_of_any_of_ours_is_missed(field: str) -> None:
    rows = {("c", "vqkernels avx2"): _row(**{field: 1})}
    assert not _verdict("wrong rows, vqkernels avx2", "c", rows).passed
    assert _verdict("wrong rows, vqkernels", "c", {("c", OURS): _row()}).passed


@pytest.mark.parametrize(("extra", "passed"), [(30, True), (31, False)])
def test_memory_is_compared_with_what_was_given(extra: int, passed: bool) -> None:
    rows = {("c", OURS): _row(extra_bytes=extra)}
    assert _verdict("extra memory, times the given", "c", rows).passed is passed


@pytest.mark.parametrize(("seconds", "passed"), [(2.0, True), (2.1, False)])
def test_all_codes_equal_is_compared_with_the_plain_case(seconds: float, passed: bool) -> None:
    rows = {(_EQUAL, OURS): _row(seconds=[0.0, seconds, 9.0]), (_PLAIN, OURS): _row()}
    assert _verdict("time, times the plain case", _EQUAL, rows).passed is passed


@pytest.mark.parametrize(("slowest", "passed"), [(1.2, True), (1.21, False)])
def test_time_per_pair_is_flat_in_the_number_of_codes(slowest: float, passed: bool) -> None:
    cases = speed_cases.MORE_CODES
    rows = {(case.name, OURS): _row(seconds=[0.0, float(case.k), 0.0]) for case in cases}
    rows[cases[2].name, OURS] = _row(seconds=[0.0, slowest * cases[2].k, 0.0])
    what = "time per pair, largest over smallest"
    assert _verdict(what, f"{cases[0].name} to {cases[-1].name}", rows).passed is passed


def test_what_was_not_measured_is_missed() -> None:
    measured: dict[str, dict[tuple[str, str], Any]] = {table: {} for table in peers.TABLES}
    found = list(targets.verdicts(measured))
    assert found
    assert not any(verdict.passed for verdict in found)


def test_every_floor_is_on_a_case_and_a_contender_that_are_measured() -> None:
    measured = {
        "nearest_code": (*speed_cases.SEARCH, *speed_cases.FEW_ROWS),
        "residual_quantize": speed_cases.RESIDUAL,
        "training_step": speed_cases.TRAINING,
        "converted_step": speed_cases.CONVERTED,
        "pruned_search": (*speed_cases.PRUNED, *speed_cases.GROWING),
        "pruned_step": speed_cases.PRUNED_TRAINING,
    }
    for table, cases in (floors.PEAK_SHARE | floors.TIMES_OURS).items():
        assert cases.keys() <= {case.name for case in measured[table]}
    for table, cases in floors.TIMES_OURS.items():
        for contenders in cases.values():
            assert contenders.keys() <= {provider.name for provider in peers.TABLES[table]}
