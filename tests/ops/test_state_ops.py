"""observe_, advance_, kmeans_*: what they store, when they act, and when they must not."""

from __future__ import annotations

from typing import Any

import cases
import pytest
import textbook
import torch
from budget import assert_within_budget
from torch import Tensor

from vqkernels import ops
from vqkernels.ops.advance import fits as fits_advance
from vqkernels.ops.observe import fits as fits_observe


def _state(k: int = 5, d: int = 3, candidates: int = 4) -> dict[str, Tensor]:
    g = cases.generator(40)
    codebook = torch.randn(k, d, generator=g)
    return {
        "codebook": codebook,
        "cluster_size": torch.full((k,), 3.0),
        "embed_sum": codebook * 3.0,
        "pending_counts": torch.randint(1, 9, (k,), generator=g).float(),
        "pending_sums": torch.randn(k, d, generator=g),
        "pending_rows": torch.randn(candidates, d, generator=g) + 50.0,
        "pending_steps": torch.tensor(1),
        "clock": torch.tensor(0),
        "idle": torch.zeros(k, dtype=torch.int64),
        "revived": torch.tensor(0),
        "frozen": torch.zeros(k, dtype=torch.int64),
    }


def _without_rows(state: dict[str, Tensor], codes: int | list[int]) -> None:
    """No row ever chose these codes."""
    for name in ("cluster_size", "embed_sum", "pending_counts", "pending_sums"):
        state[name][codes] = 0.0


def _copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in state.items()}


def _advance(state: dict[str, Any], **changed: Any) -> None:
    options = {"decay": 0.5, "epsilon": 1e-5, "steps_due": 1, "metric": "l2"}
    options |= {"threshold": 1.0, "idle_limit": 0, "revive_every": 1, **changed}
    ops.advance_(*state.values(), *options.values())


def _observe(state: dict[str, Tensor], counts: Tensor, found: int = 4) -> None:
    k, d = state["codebook"].shape
    ops.observe_(
        state["pending_counts"],
        state["pending_sums"],
        state["pending_rows"],
        state["pending_steps"],
        counts,
        torch.ones(k, d),
        torch.full((4, d), 8.0),
        torch.tensor(found),
    )


def test_advance_applies_the_formula_and_clears_what_was_pending() -> None:
    state = _state()
    before = _copy(state)
    _advance(state)
    names = ("cluster_size", "embed_sum", "pending_counts", "pending_sums")
    exact = textbook.ema(*(before[name].double() for name in names), 0.5, 1e-5)
    eager = textbook.ema(*(before[name] for name in names), 0.5, 1e-5)
    for name, *values in zip(("codebook", "cluster_size", "embed_sum"), exact, eager, strict=True):
        assert_within_budget(state[name], *values)
    assert not state["pending_counts"].any()
    assert not state["pending_sums"].any()
    assert state["pending_steps"] == 0
    assert state["clock"] == 1


def test_advance_changes_nothing_before_it_is_due() -> None:
    state = _state()
    before = _copy(state)
    _advance(state, steps_due=2)
    for name, value in state.items():
        assert torch.equal(value, before[name]), name


def test_a_dead_code_becomes_a_candidate_with_the_limit_as_its_size() -> None:
    state = _state()
    _without_rows(state, [1, 3])
    rows = state["pending_rows"].clone()
    _advance(state, threshold=0.25)
    for turn, code in enumerate((1, 3)):
        assert torch.equal(state["codebook"][code], rows[turn])
        assert state["cluster_size"][code] == 0.25
        assert torch.equal(state["embed_sum"][code], rows[turn] * 0.25)
    assert (state["codebook"][[0, 2, 4]] < 20).all()


def test_with_few_rows_per_code_the_limit_is_a_quarter_of_the_mean() -> None:
    """Absolute thresholds would replace all codes at once in a small batch."""
    state = _state()
    state["cluster_size"] = torch.tensor([0.5, 0.5, 0.5, 0.5, 0.0])
    state["pending_counts"] = torch.tensor([0.5, 0.5, 0.5, 0.5, 0.0])
    _advance(state, threshold=1.0)
    assert (state["codebook"][:4] < 20).all()
    assert (state["codebook"][4] > 20).all()
    assert state["cluster_size"][4] == pytest.approx(0.1)  # mean 0.4, a quarter of it


def test_more_dead_codes_than_candidates_share_them() -> None:
    state = _state(k=9, candidates=2)
    _without_rows(state, list(range(1, 9)))
    rows = state["pending_rows"].clone()
    _advance(state)
    assert torch.equal(state["codebook"][1:], rows[torch.arange(8) % 2])


def test_revival_waits_for_its_turn() -> None:
    state = _state()
    _without_rows(state, 2)
    _advance(state, revive_every=2)
    assert (state["codebook"][2] < 20).all()
    state["pending_steps"].fill_(1)
    _advance(state, revive_every=2)
    assert (state["codebook"][2] > 20).all()


def test_without_candidates_nothing_is_revived() -> None:
    state = _state()
    _without_rows(state, 2)
    _advance({**state, "pending_rows": None})
    assert (state["codebook"] < 20).all()


def test_an_optimizer_codebook_only_counts_and_revives() -> None:
    state = _state()
    before = _copy(state)
    _without_rows(state, 2)
    _advance({**state, "embed_sum": None, "pending_sums": None})
    assert torch.equal(state["codebook"][:2], before["codebook"][:2])
    assert torch.equal(state["codebook"][2], before["pending_rows"][0])
    assert state["clock"] == 1


def test_a_code_grows_older_by_the_rows_of_the_others_until_it_takes_one() -> None:
    state = _state()
    state["idle"] += torch.tensor([7, 7, 7, 0, 1 << 40])
    state["pending_counts"] = torch.tensor([3.0, 0.0, 2.0**24, 1.0, 0.0])
    _advance({**state, "pending_rows": None}, idle_limit=1)
    rows = (1 << 24) + 4  # float32 has no such number
    assert state["idle"].tolist() == [0, 7 + rows, 0, 0, (1 << 40) + rows]


def test_a_code_that_reaches_the_idle_limit_is_replaced_and_counted() -> None:
    state = _state()
    rows = state["pending_rows"].clone()
    state["pending_counts"] = torch.tensor([3.0, 0.0, 2.0, 0.0, 0.0])
    state["idle"] += torch.tensor([99, 95, 99, 94, 96])
    state["revived"].fill_(4)
    _advance(state, idle_limit=100)
    assert (state["codebook"] > 20).all(dim=1).tolist() == [False, True, False, False, True]
    assert torch.equal(state["codebook"][[1, 4]], rows[:2])
    assert state["idle"].tolist() == [0, 0, 0, 99, 0]
    assert state["revived"] == 6
    limit = state["cluster_size"][1]
    assert limit == pytest.approx((5 * 1.5 + 2.5) / 5 / 4)
    assert torch.equal(state["embed_sum"][4], rows[1] * limit)


def test_a_code_that_finds_no_finite_candidate_stays_idle() -> None:
    state = _state()
    state["pending_rows"].fill_(torch.inf)
    state["pending_counts"][1] = 0.0
    state["idle"][1] = 100
    _advance(state, idle_limit=100)
    assert (state["codebook"] < 20).all()
    assert state["idle"][1] > 100
    assert state["revived"] == 0


@pytest.mark.parametrize("metric", cases.METRICS)
def test_a_frozen_code_keeps_its_bits_and_is_counted(metric: str) -> None:
    state = _state()
    _without_rows(state, [0, 1, 3])
    before = _copy(state)
    state["frozen"][[1, 2]] = 1
    state["idle"] += 1000
    _advance(state, idle_limit=1000, metric=metric)
    assert torch.equal(state["codebook"][1:3], before["codebook"][1:3])
    assert (state["codebook"] > 20).all(dim=1).tolist() == [True, False, False, True, False]
    assert not torch.equal(state["codebook"][4], before["codebook"][4])
    assert state["cluster_size"][2] == 0.5 * 3.0 + 0.5 * before["pending_counts"][2]
    assert state["idle"].tolist() == [0, 1000 + int(before["pending_counts"].sum()), 0, 0, 0]
    assert state["revived"] == 2


def test_cosine_codes_are_normalised_after_the_move() -> None:
    state = _state()
    _advance({**state, "pending_rows": None}, metric="cosine")
    norms = state["codebook"].double().norm(dim=1)
    eps = torch.finfo(torch.float32).eps
    assert ((norms - 1.0).abs() <= eps).all()


def test_observe_adds_counts_sums_and_steps_and_keeps_the_newest_rows() -> None:
    state = _state()
    before = _copy(state)
    counts = torch.tensor([1, 0, 2, 0, 5])
    _observe(state, counts)
    assert torch.equal(state["pending_counts"], before["pending_counts"] + counts)
    assert torch.equal(state["pending_sums"], before["pending_sums"] + 1.0)
    assert (state["pending_rows"] == 8.0).all()
    assert state["pending_steps"] == 2


def test_observe_of_a_batch_without_rows_is_no_step() -> None:
    state = _state()
    before = _copy(state)
    _observe(state, torch.zeros(5, dtype=torch.int64), found=0)
    assert state["pending_steps"] == 1
    assert torch.equal(state["pending_rows"], before["pending_rows"])
    assert torch.equal(state["pending_counts"], before["pending_counts"])


class _RunInBackward(torch.autograd.Function):
    """Calls a function while the autograd engine runs, as a checkpoint's recompute does."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, act: Any) -> Tensor:
        ctx.act = act
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        ctx.act()
        return grad, None


@pytest.mark.parametrize("act", ["advance_", "observe_"])
def test_nothing_moves_in_a_recompute(act: str) -> None:
    state = _state()
    before = _copy(state)
    calls = {
        "advance_": lambda: _advance(state),
        "observe_": lambda: _observe(state, torch.ones(5)),
    }
    _RunInBackward.apply(torch.ones(1, requires_grad=True), calls[act]).sum().backward()
    for name, value in state.items():
        assert torch.equal(value, before[name]), name


def _kmeans_state() -> tuple[Tensor, Tensor, Tensor]:
    return torch.zeros(5, 3), torch.ones(5), torch.zeros(5, 3)


@pytest.mark.parametrize(("initialised", "found"), [(1, 4), (0, 0)])
def test_kmeans_acts_only_on_a_fresh_codebook_and_real_rows(initialised: int, found: int) -> None:
    codebook, size, total = _kmeans_state()
    flag, rows = torch.tensor(initialised), torch.ones(4, 3)
    ops.kmeans_start_(codebook, flag, rows, torch.tensor(found), None)
    assert not codebook.any()
    counts = torch.full((5,), 2 if found else 0)
    ops.kmeans_step_(
        codebook, size, total, flag, counts, torch.ones(5, 3), counts.sum(), None, "l2"
    )
    assert not codebook.any()
    assert size.tolist() == [1.0] * 5
    assert not total.any()


def test_kmeans_starts_from_the_found_rows_in_turn() -> None:
    codebook, *_ = _kmeans_state()
    rows = torch.arange(12.0).reshape(4, 3)
    ops.kmeans_start_(codebook, torch.tensor(0), rows, torch.tensor(2), None)
    assert torch.equal(codebook, rows[torch.tensor([0, 1, 0, 1, 0])])


@pytest.mark.parametrize("metric", cases.METRICS)
def test_kmeans_leaves_frozen_codes_where_they_are(metric: str) -> None:
    codebook, size, total = torch.full((5, 3), 7.0), torch.ones(5), torch.zeros(5, 3)
    flag, frozen = torch.tensor(0), torch.tensor([0, 1, 0, 0, 1])
    ops.kmeans_start_(codebook, flag, torch.ones(4, 3), torch.tensor(4), frozen)
    assert codebook[:, 0].tolist() == [1.0, 7.0, 1.0, 1.0, 7.0]
    counts, sums = torch.full((5,), 2), torch.full((5, 3), -4.0)
    ops.kmeans_step_(codebook, size, total, flag, counts, sums, counts.sum(), frozen, metric)
    assert (codebook[:, 0] < 0).tolist() == [True, False, True, True, False]
    assert (codebook[[1, 4]] == 7.0).all()
    assert size.tolist() == [2.0] * 5


def test_a_kmeans_step_moves_codes_to_their_means_and_keeps_empty_ones() -> None:
    codebook, size, total = torch.full((3, 2), 7.0), torch.ones(3), torch.zeros(3, 2)
    counts, sums = torch.tensor([4, 0, 1]), torch.tensor([[8.0, 4.0], [0.0, 0.0], [5.0, 6.0]])
    ops.kmeans_step_(
        codebook, size, total, torch.tensor(0), counts, sums, counts.sum(), None, "l2"
    )
    assert codebook.tolist() == [[2.0, 1.0], [7.0, 7.0], [5.0, 6.0]]
    assert size.tolist() == [4.0, 1.0, 1.0]
    assert total.tolist() == [[8.0, 4.0], [7.0, 7.0], [5.0, 6.0]]


_OTHER = {
    "another shape": lambda t: torch.cat([t, t], -1) if t.ndim else t.repeat(2),
    "another dtype": lambda t: t.long() if t.is_floating_point() else t.float(),
}


@pytest.mark.parametrize("kind", _OTHER)
@pytest.mark.parametrize("name", list(_state()))
def test_a_state_that_does_not_fit_is_left_to_torch(name: str, kind: str) -> None:
    """A launcher reads by pointer: it must not touch tensors of another shape or dtype."""
    state = _state()
    state[name] = _OTHER[kind](state[name])
    assert not fits_advance(**state)
    counts, sums = torch.ones(5, dtype=torch.int64), torch.ones(5, 3)
    rows, found = torch.ones(4, 3), torch.tensor(4)
    kept = {key: value for key, value in state.items() if key.startswith("pending")}
    fits = fits_observe(**kept, counts=counts, sums=sums, rows=rows, found=found)
    assert fits == (not name.startswith("pending"))
