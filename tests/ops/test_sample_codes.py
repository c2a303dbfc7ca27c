"""sample_codes: draws follow the soft assignment; only seed, clock and row move them."""

from __future__ import annotations

import cases
import pytest
import textbook
import torch
from torch import Tensor

from vqkernels import ops
from vqkernels.ops._hash import hash32

CLOCK = torch.tensor(3)


def _draw(
    x: Tensor, codebook: Tensor, temperature: float, backend: str, clock: int = 3, seed: int = 0
) -> Tensor:
    normaliser, _, _ = ops.soft_assign(x, codebook, None, temperature, 1, False, backend)
    return ops.sample_codes(
        x, codebook, normaliser, torch.tensor(clock), seed, temperature, 1, backend
    )


@pytest.mark.parametrize("k", [1, 7, 100, 1500])
def test_frequencies_follow_the_probabilities(k: int, backend: str) -> None:
    """Pearson's chi-square of 40000 draws; five standard deviations, and the seed is fixed."""
    x, codebook = cases.gaussian(1, k, 3, seed=80)
    drawn = torch.bincount(
        _draw(x.expand(40_000, -1), codebook, 3.0, backend), minlength=k
    ).double()
    p = textbook.soft_logits(x.double(), codebook.double(), 3.0).softmax(dim=1)[0]
    expected = p * drawn.sum()
    often = expected >= 5
    rest = torch.stack([drawn[~often].sum(), expected[~often].sum()])
    squares = (drawn[often] - expected[often]).square() / expected[often]
    statistic = float(squares.sum() + (rest[0] - rest[1]).square() / rest[1].clamp(min=1.0))
    degrees = int(often.sum())
    assert statistic <= degrees + 5.0 * (2.0 * degrees) ** 0.5


def test_the_draw_inverts_the_cumulative_probability(backend: str) -> None:
    x, codebook = cases.gaussian(500, 300, 6, seed=81)
    drawn = _draw(x, codebook, 6.0, backend)
    p = textbook.soft_logits(x.double(), codebook.double(), 6.0).softmax(dim=1)
    uniform = (hash32(torch.arange(500), CLOCK, 0).double() + 0.5) * 2.0**-32
    above = p.cumsum(dim=1).gather(1, drawn[:, None])[:, 0]
    below = above - p.gather(1, drawn[:, None])[:, 0]
    slack = 1e-5  # of a cumulative probability, for float32 logits about -20
    assert bool(((below - slack <= uniform) & (uniform <= above + slack)).all())


def test_a_code_without_probability_is_never_drawn(backend: str) -> None:
    x, codebook = cases.search("non-finite codes")
    drawn = _draw(x, codebook, 1e6, backend)
    assert bool(codebook[drawn].isfinite().all())
    assert len(drawn.unique()) > 50


def test_rows_and_codebooks_that_are_not_finite_give_index_0(backend: str) -> None:
    x, codebook = cases.search("non-finite rows")
    assert not _draw(x, codebook, 20.0, backend)[~x.isfinite().all(dim=1)].any()
    assert not _draw(*cases.search("no finite code"), 20.0, backend).any()


def test_a_low_temperature_draws_the_nearest_code(backend: str) -> None:
    x, codebook = cases.gaussian()
    nearest = ops.nearest_code(x, codebook, None, "l2", 1, backend)[0]
    assert torch.equal(_draw(x, codebook, 1e-6, backend), nearest)


def test_clock_and_seed_alone_change_the_draw(backend: str) -> None:
    x, codebook = cases.gaussian()
    first = _draw(x, codebook, 20.0, backend)
    state = torch.get_rng_state()
    torch.rand(3)
    assert torch.equal(_draw(x, codebook, 20.0, backend), first)
    torch.set_rng_state(state)
    for other in ({"clock": 4}, {"seed": 1}):
        changed = _draw(x, codebook, 20.0, backend, **other) != first
        assert float(changed.double().mean()) > 0.5


@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_layouts_change_no_draw(layout: str, backend: str) -> None:
    rows, codebook = cases.batch()
    x, channel_dim = cases.LAYOUTS[layout](rows)
    channel_dim %= x.ndim
    normaliser, _, _ = ops.soft_assign(x, codebook, None, 6.0, channel_dim, False, backend)
    drawn = ops.sample_codes(x, codebook, normaliser, CLOCK, 0, 6.0, channel_dim, backend)
    flat = _draw(cases.as_matrix(x, channel_dim), codebook, 6.0, backend)
    assert torch.equal(drawn.reshape(-1), flat)


@pytest.mark.usefixtures("two_threads")
def test_thread_count_changes_no_draw(backend: str) -> None:
    x, codebook = cases.gaussian(3000, 300, 20)
    draws = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        draws.append(_draw(x, codebook, 20.0, backend))
    assert torch.equal(draws[0], draws[1])
    assert torch.equal(draws[0], draws[2])
