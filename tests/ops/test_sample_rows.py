"""Rows picked from a batch without a generator."""

from __future__ import annotations

import cases
import pytest
import torch
from torch import Tensor

from vqkernels import ops

CLOCK = torch.tensor(3)


def _sample(x: Tensor, count: int, mask: Tensor | None = None, **changed: object) -> tuple:
    options = {"clock": CLOCK, "count": count, "seed": 0, "metric": "l2", "channel_dim": 1}
    return ops.sample_rows(x, mask, *{**options, **changed}.values())


def _numbered(n: int) -> Tensor:
    """Row i holds i: the sample shows which positions were taken."""
    return torch.arange(float(n))[:, None].expand(n, 2).contiguous()


@pytest.mark.parametrize(("n", "count"), [(1000, 64), (64, 64), (65, 64)])
def test_the_rows_are_distinct_rows_of_the_batch(n: int, count: int) -> None:
    rows, found = _sample(_numbered(n), count)
    taken = rows[:, 0].tolist()
    assert found == count
    assert len(set(taken)) == count
    assert set(taken) <= set(range(n))


def test_the_rows_are_spread_over_the_batch_in_mixed_order() -> None:
    taken = _sample(_numbered(6400), 64)[0][:, 0]
    assert sorted((taken // 100).tolist()) == list(range(64))
    assert taken.tolist() != sorted(taken.tolist())


def test_a_small_batch_is_taken_whole_and_then_repeated() -> None:
    rows, found = _sample(_numbered(5), 12)
    assert found == 5
    assert sorted(rows[:5, 0].tolist()) == [0, 1, 2, 3, 4]
    assert torch.equal(rows, rows[torch.arange(12) % 5])


@pytest.mark.parametrize("count", [16, 200])
def test_masked_and_nonfinite_rows_are_never_taken(count: int) -> None:
    x = _numbered(100)
    mask = torch.arange(100) % 3 == 0
    x[6, 1] = torch.nan
    rows, found = _sample(x, count, mask)
    taken = set(rows[:, 0].tolist())
    assert taken <= set(range(0, 100, 3)) - {6}
    assert int(found) == len(taken)


def test_a_batch_without_usable_rows_is_reported() -> None:
    assert _sample(_numbered(20), 4, torch.zeros(20, dtype=torch.bool))[1] == 0
    assert _sample(_numbered(20) * torch.nan, 4)[1] == 0
    rows, found = _sample(_numbered(0), 4)
    assert found == 0
    assert rows.shape == (4, 2)


@pytest.mark.parametrize("layout", [name for name in cases.LAYOUTS if not name.startswith("no ")])
def test_layout_changes_nothing(layout: str) -> None:
    x, channel_dim = cases.LAYOUTS[layout](cases.batch()[0])
    channel_dim %= x.ndim
    expected = _sample(cases.as_matrix(x, channel_dim), 7)
    got = _sample(x, 7, channel_dim=channel_dim)
    assert torch.equal(got[0], expected[0])
    assert got[1] == expected[1]


def test_clock_and_seed_change_the_sample_and_nothing_else_does() -> None:
    x = _numbered(1000)
    first = _sample(x, 32)[0]
    before = torch.get_rng_state()
    torch.rand(3)
    assert torch.equal(_sample(x, 32)[0], first)
    assert not torch.equal(_sample(x, 32, clock=CLOCK + 1)[0], first)
    assert not torch.equal(_sample(x, 32, seed=1)[0], first)
    torch.set_rng_state(before)


def test_cosine_rows_have_unit_length() -> None:
    rows, _ = _sample(cases.batch()[0], 8, metric="cosine")
    eps = torch.finfo(torch.float32).eps
    assert ((rows.double().norm(dim=1) - 1.0).abs() <= eps).all()
