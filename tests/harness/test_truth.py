"""The oracle of the benchmarks against the one of the tests, which evaluates every pair."""

from __future__ import annotations

import cases
import oracle
import pytest
import torch

from benchmarks import truth

_FINITE = [name for name in cases.SEARCH if "finite" not in name and name != "largest floats"]


@pytest.mark.parametrize("name", _FINITE)
@pytest.mark.parametrize(("metric", "pairs"), [("l2", 1000), ("l2", 1 << 22), ("cosine", 1 << 22)])
def test_equals_the_oracle_in_blocks_of_any_size(
    name: str, metric: str, pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(truth, "_PAIRS", pairs)
    x, codebook = cases.search(name)
    indices, distances = map(torch.from_numpy, oracle.on_case(name, torch.float32, metric))
    found = truth.nearest(x, codebook, metric)
    assert torch.equal(found.indices, indices)
    assert torch.equal(found.scores.float(), distances if metric == "l2" else -distances)
    assert truth.wrong(x, codebook, indices, found, metric) == (0, 0)


def test_a_farther_code_is_wrong_and_an_equal_one_is_another_tie() -> None:
    x = torch.zeros(4, 1)
    codebook = torch.tensor([[1.0], [-1.0], [1.0], [2.0]])
    nearest = truth.nearest(x, codebook)
    assert nearest.indices.tolist() == [0, 0, 0, 0]
    assert truth.wrong(x, codebook, torch.tensor([0, 1, 2, 3]), nearest) == (1, 2)


def test_one_unit_in_the_last_place_of_float32_is_seen() -> None:
    near = torch.tensor([[1000.0]])
    codebook = torch.cat([near.nextafter(torch.tensor([[2000.0]])), near])
    nearest = truth.nearest(near, codebook)
    assert nearest.indices.tolist() == [1]
    assert truth.wrong(near, codebook, torch.tensor([0]), nearest) == (1, 0)


def test_a_level_is_judged_on_what_the_contenders_own_levels_have_left() -> None:
    x = torch.tensor([[1.0], [1.0], [1.0], [1.0]])
    codebooks = torch.tensor([[[1.0], [3.0]], [[0.0], [-2.0]]])
    found = torch.tensor([[0, 0], [1, 1], [1, 0], [0, 1]])
    # Row 1 starts wrong and then corrects itself, rows 2 and 3 end wrong.
    assert truth.judge(x, codebooks)(found) == (3, 0)
    assert truth.judge(x[:1], codebooks)(found[:1]) == (0, 0)


def test_a_sample_of_rows_is_the_same_for_everybody() -> None:
    x, codebook = cases.gaussian(500, 30, 4)
    found = truth.nearest(x, codebook).indices
    judged = truth.judge(x, codebook, rows=100)
    assert judged(found) == (0, 0)
    wrong = judged((found + 1) % 30)
    assert wrong == (100, 0)
    assert truth.judge(x, codebook, rows=100)((found + 1) % 30) == wrong
    assert truth.judge(x, codebook, rows=1000)((found + 1) % 30) == (500, 0)


def test_values_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="must be finite"):
        truth.nearest(torch.tensor([[torch.nan]]), torch.zeros(1, 1))
