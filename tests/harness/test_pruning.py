"""The benchmark of the search that leaves codes out: its data, its tables, its verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import drawn
import pytest
import speed_cases
import torch

from benchmarks import growth_plot, latents, pruning, results, tables, truth
from benchmarks.peers import OURS
from benchmarks.pruning import DENSE, FAISS, GROWING, MOVED, PREPARE
from benchmarks.timing import Effort, Samples
from benchmarks.verdicts import Verdict

WHERE = {"machine": "m", "commit": "1", "measured": "2026-01", "torch": "2"}


def test_no_row_is_a_code_and_no_code_is_there_twice() -> None:
    x, codes = drawn.photo(300, 500, 8)
    assert len(torch.cat([x, codes]).unique(dim=0)) == 800


def test_more_codes_begin_with_those_of_fewer() -> None:
    (x, few), (other, many) = drawn.photo(50, 20, 8), drawn.photo(50, 200, 8)
    assert torch.equal(x, other)
    assert torch.equal(few, many[:20])


def test_whitened_components_have_one_spread_and_the_others_do_not() -> None:
    white, photo = (make(20000, 1, 8)[0].var(dim=0) for make in (drawn.white, drawn.photo))
    assert ((white - 1).abs() < 0.1).all()
    assert photo[-1] > 10 * photo[0]


def test_there_are_windows_enough_for_every_case() -> None:
    for case in (*speed_cases.PRUNED, *speed_cases.GROWING, *speed_cases.PRUNED_TRAINING):
        x, codes = case.make()
        assert (len(x), len(codes)) == (case.n, case.k), case.name


def _row(case: speed_cases.SpeedCase, provider: str, seconds: float, **fields: Any) -> results.Row:
    row = {"case": case.name, "provider": provider, **WHERE, "n": case.n, "k": case.k, "d": case.d}
    row |= {"seconds": [0.0, seconds, 9.0], "times_ours": [0.0, seconds / 0.004, 9.0]}
    row |= {"wrong_rows": 0, "other_ties": 0, "judged_rows": case.n, "visited_share": 0.0123}
    return row | {"peak_flops": [0.0, 5e11, 9e11], "peak_share": 6.5} | fields


def _rows(case: speed_cases.SpeedCase) -> list[results.Row]:
    seconds = {OURS: 0.004, DENSE: 0.040, FAISS: 0.044, PREPARE: 0.2, MOVED: 0.005}
    return [_row(case, name, value) for name, value in seconds.items()]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[results.Row]:
    rows = [row for case in speed_cases.GROWING for row in _rows(case)]
    monkeypatch.setattr(tables, "rows", lambda table: rows)
    return rows


def test_a_line_says_how_long_everyone_takes(measured: list[results.Row]) -> None:
    n, k, d = speed_cases.GROWING[-1][:3]
    at_peak = 1e3 * 2 * n * k * d / 5e11
    line = pruning.search().splitlines()[-3]
    cells = ["1.23%", "4.00 ms", f"{at_peak:.0f} ms, 6.50x", "40.0 ms, 10.0x", "44.0 ms, 11.0x"]
    assert line == f"| {GROWING[-1]} | {' | '.join(cells)} | 0 of {n} |"


def test_upkeep_is_beside_a_search_in_all_codes(measured: list[results.Row]) -> None:
    line = pruning.upkeep().splitlines()[-1]
    assert line == f"| {GROWING[-1]} | 40.0 ms | 200 ms, 500.0% | 1.00 ms, 2.5% |"


def test_growth_is_time_per_row(measured: list[results.Row]) -> None:
    assert pruning.curves()[FAISS][0] == (4096, 0.044 / 16384 * 1e6)
    assert pruning.growth().splitlines()[2] == "| 4096 | 1.23% | 0.24 | 2.44 | 2.69 |"


def test_a_case_of_which_a_contender_is_missing_is_not_shown(
    measured: list[results.Row],
) -> None:
    measured[:] = [row for row in measured if (row["provider"], row["k"]) != (MOVED, 4096)]
    assert len(pruning.curves()[OURS]) == len(GROWING) - 1


def test_before_the_first_run_there_is_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "rows", lambda table: [])
    assert not growth_plot.stale()
    assert pruning.search() == "Not yet measured."


def test_the_picture_is_drawn_of_these_numbers(
    measured: list[results.Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growth_plot, "PATH", tmp_path / "picture.svg")
    assert growth_plot.stale()
    growth_plot.draw()
    assert not growth_plot.stale()
    measured[0]["seconds"] = [0.0, 1.0, 9.0]
    assert growth_plot.stale()


def _verdict(what: str, case: str, rows: list[results.Row]) -> Verdict:
    by_key = {(row["case"], row["provider"]): row for row in rows}
    found = [v for v in pruning.verdicts(by_key) if (v.what, v.case) == (what, case)]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize(("slower", "passed"), [(10.0, True), (10.1, False)])
def test_time_per_row_may_grow_by_ten(slower: float, passed: bool) -> None:
    few, *_, many = speed_cases.GROWING
    rows = [_row(few, OURS, 1.0), _row(many, OURS, slower)]
    assert _verdict("time per row", f"{few.name} to {many.name}", rows).passed is passed


@pytest.mark.parametrize(("refresh", "passed"), [(0.05, True), (0.051, False)])
def test_a_refresh_may_take_a_twentieth_of_a_search(refresh: float, passed: bool) -> None:
    case = speed_cases.PRUNED[0]
    rows = [_row(case, OURS, 0.25), _row(case, DENSE, 1.0), _row(case, MOVED, 0.25 + refresh)]
    what = "refresh, of a search in all codes"
    assert _verdict(what, case.name, rows).passed is passed


def test_without_rows_nothing_passes() -> None:
    found = list(pruning.verdicts({}))
    assert len(found) == 1 + len(speed_cases.PRUNED)
    assert not any(verdict.passed for verdict in found)


def test_a_wrong_row_of_either_search_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    x, codes = torch.randn(60, 4), torch.randn(20, 4)
    effort = Effort(rounds=3, seconds=0.01)
    assert set(latents.measure(x, codes, effort).wrong.values()) == {(0, 0)}
    exact = truth.judge(x, codes)
    monkeypatch.setattr(truth, "judge", lambda x, codebook: lambda found: exact(found * 0))
    assert all(wrong.rows > 30 for wrong in latents.measure(x, codes, effort).wrong.values())


def test_a_row_of_an_epoch_has_its_ratio_within_rounds() -> None:
    samples = {OURS: Samples([1.0, 2.0, 4.0], 1), DENSE: Samples([2.0, 6.0, 16.0], 1)}
    wrong = {OURS: truth.Wrong(0, 0), DENSE: truth.Wrong(2, 0)}
    made = latents.rows("c", torch.zeros(5, 3), latents.Measured(samples, wrong, 0.25), WHERE)
    assert made[1]["times_ours"] == [2.5, 3.0, 3.5]
    assert pruning.latents_lines(made) == [
        ["c", "25.00%", "2.00 s", "6.00 s, 3.00x, 2 wrong", "0 of 5"]
    ]


def test_a_tokenizer_is_kept_after_every_epoch_and_its_latents_are_its_encoder_s(
    tmp_path: Path,
) -> None:
    options = {"data.train_size": 12, "tokenizer.batch_size": 4, "tokenizer.steps": 6}
    given = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    train, kept = latents.epochs(["photos", "--out", str(tmp_path), *given])
    assert [folder.name for folder in kept] == ["step-000003", "step-000006"]
    first, second = (latents.VQVAE.from_pretrained(folder) for folder in kept)
    rows = latents.latents(second, train, 100)
    assert rows.shape == (100, second.quantizer.embedding_dim)
    assert not torch.equal(rows, latents.latents(first, train, 100))
    crop = train.batch(torch.tensor([1]), torch.tensor([1])).x
    assert torch.equal(
        second.quantizer.encode(rows[64:, :, None]).flatten(),
        second.encode(crop)[0].flatten()[:36],
    )
