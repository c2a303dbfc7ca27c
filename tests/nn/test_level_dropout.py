"""Quantizer dropout: what an example keeps is drawn on the device and said by its indices."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from modules import (
    UPDATES,
    D,
    K,
    assert_checkpointed_as_plain,
    assert_same_state,
    batches,
    quantizer,
    snapshot,
)
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

import vqkernels as vq
from vqkernels import ops

LEVELS = 4
both = pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
all_updates = pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES)


def _residual(
    dropout: vq.LevelDropout | None = vq.LevelDropout(),  # noqa: B008 (frozen)
    levels: int = LEVELS,
    shared: bool = False,
    **options: Any,
) -> vq.nn.ResidualVQ:
    seeds = iter(range(levels))
    return vq.nn.ResidualVQ(
        lambda: quantizer(next(seeds), **options), levels, shared=shared, dropout=dropout
    )


def _kept(indices: Tensor) -> Tensor:
    """How many levels there are at each position; they must be the first ones."""
    there = indices >= 0
    assert torch.equal(there, there.sort(dim=-1, descending=True, stable=True).values)
    return there.sum(dim=-1)


@pytest.mark.parametrize("probability", [1.0, 0.3])
def test_numbers_are_drawn_with_the_stated_probabilities(probability: float) -> None:
    examples, levels, keep, multiple_of = 20_000, 8, 2, 3
    draws = torch.tensor(4)
    kept = ops.draw_levels(draws, examples, levels, probability, keep, multiple_of, 0)
    expected = torch.zeros(levels + 1, dtype=torch.float64)
    for number in range(keep, levels + 1):
        rounded = min(-(-number // multiple_of) * multiple_of, levels)
        expected[rounded] += probability / (levels - keep + 1)
    expected[levels] += 1.0 - probability
    found = torch.bincount(kept, minlength=levels + 1).double() / examples
    assert not found[expected == 0].any()
    five_sigma = 5.0 * (expected * (1.0 - expected) / examples).sqrt()
    assert ((found - expected).abs() <= five_sigma).all()


def test_every_training_forward_draws_for_every_example_and_evaluation_keeps_all() -> None:
    """One number per element of the batch; the generator is neither read nor advanced."""
    module = _residual(channel_dim=1, update=None)
    x = torch.randn(64, D, 5)
    before = torch.get_rng_state()
    drawn = []
    for _ in range(3):
        kept = _kept(module(x).indices)
        assert torch.equal(kept, kept[:, :1].expand(64, 5))
        drawn.append(kept[:, 0])
    assert torch.equal(torch.get_rng_state(), before)
    assert set(torch.cat(drawn).tolist()) == {1, 2, 3, 4}
    for first, second in ((0, 1), (1, 2)):
        assert 0.1 < (drawn[first] == drawn[second]).double().mean() < 0.5  # a quarter by chance
    other = _residual(vq.LevelDropout(seed=1), update=None)
    assert not torch.equal(_kept(other(x[..., 0]).indices), drawn[0])
    assert (_kept(module.eval()(x).indices) == LEVELS).all()
    assert module.draws == 3


@pytest.mark.parametrize("masked", [False, True], ids=["all rows", "masked"])
@all_updates
def test_levels_learn_from_the_rows_that_reach_them(
    update: vq.EMA | vq.Gradient | None, masked: bool
) -> None:
    """Single quantizers on successive residuals, masked where a row has ended."""
    module = _residual(update=update, init="normal", revive=None)
    alone = copy.deepcopy(module.quantizers)
    mask = torch.arange(64) % 3 != 1 if masked else torch.ones(64, dtype=torch.bool)
    for x in batches(6):
        out = module(x, mask)
        kept, left, total, loss = _kept(out.indices), x, torch.zeros_like(x), 0.0
        for level, single in enumerate(alone):
            taking = mask & (kept > level)
            step = single(left, taking)
            code = torch.where(taking[:, None], step.quantized.detach(), 0.0)
            left, total = left - code, total + code
            loss = loss + step.loss.detach() * taking.sum() / mask.sum()
            assert torch.equal(out.indices[:, level], step.indices)
        assert torch.equal(out.quantized, torch.where(mask[:, None], total, x))
        assert torch.equal(module.decode(out.indices)[mask], out.quantized[mask])
        eps = torch.finfo(torch.float32).eps
        assert abs(float(out.loss.detach() - loss)) <= 2 * LEVELS * eps * float(loss)
        assert_same_state(module.quantizers, snapshot(alone))


@both
def test_dead_codes_are_revived_by_rows_that_reach_their_level(shared: bool) -> None:
    far = torch.full((K, D), 50.0)
    options = {"init": far, "update": vq.EMA(decay=0.5), "revive": vq.Revive(threshold=2.0)}
    module = _residual(shared=shared, **options)
    module.quantizers[0].codebook[: K // 2] = torch.randn(K // 2, D)
    (x,) = batches(1, 512)
    out = module(x)
    kept, left = _kept(out.indices), x
    met: list[Tensor] = []
    for level in range(LEVELS):
        met.append(left[kept > level])
        left = left - vq.lookup(
            out.indices[:, level], module.quantizers[0 if shared else level].codebook
        )
    module.flush()
    for number, quantizer_of_level in enumerate(module.quantizers):
        rows = torch.cat(met) if shared else met[number]
        codes = quantizer_of_level.codebook
        revived = (codes[:, None] == rows[None]).all(dim=2).any(dim=1)
        assert revived.sum() >= K // 2 - 1
        assert (quantizer_of_level.pending_rows[:, None] == rows).all(dim=2).any(dim=1).all()


@both
@pytest.mark.parametrize("reentrant", [False, True])
@all_updates
def test_a_checkpointed_region_draws_the_same_again(
    update: vq.EMA | vq.Gradient | None, reentrant: bool, shared: bool
) -> None:
    assert_checkpointed_as_plain(lambda: _residual(update=update, shared=shared), reentrant)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("checkpointed", [False, True], ids=["plain", "checkpointed"])
@both
def test_a_compiled_step_equals_the_eager_one(shared: bool, checkpointed: bool) -> None:
    """In one graph, for any batch size: what is drawn is no constant of it."""
    torch._dynamo.reset()
    eager, module = (_residual(shared=shared, init="normal") for _ in range(2))
    counter = CompileCounterWithBackend("aot_eager")

    def step(x: Tensor, module: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        out = module(x * 1.5)
        return out.quantized, out.loss, out.indices

    def call(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if checkpointed:
            return checkpoint(step, x, module, use_reentrant=False)
        return step(x, module)

    compiled = torch.compile(call, backend=counter, fullgraph=True)
    for number, n in enumerate((64, 64, 50, 33, 77)):
        (x,) = batches(1, n, seed=n + number)
        leaves = [x.clone().requires_grad_() for _ in range(2)]
        results = step(leaves[0], eager), compiled(leaves[1])
        for quantized, loss, _ in results:
            (quantized.square().sum() + loss).backward()
        assert torch.equal(results[0][2], results[1][2])
        assert torch.equal(results[0][0], results[1][0])
        assert torch.equal(leaves[0].grad, leaves[1].grad)
        if number == 2:
            settled = counter.frame_count
    assert counter.frame_count == settled <= 2
    assert_same_state(module, snapshot(eager))
    torch._dynamo.reset()


def test_a_resumed_run_draws_what_the_whole_one_drew() -> None:
    xs = batches(5)
    whole, first, second = (_residual() for _ in range(3))
    expected = [whole(x).indices for x in xs]
    for x in xs[:2]:
        first(x)
    second.load_state_dict(first.state_dict())
    for x, indices in zip(xs[2:], expected[2:], strict=True):
        assert torch.equal(second(x).indices, indices)
    assert second.type(torch.float16).draws.dtype == torch.int64
    assert "draws" not in _residual(None).state_dict()


REFUSED: list[tuple[Any, type[Exception], str]] = [
    (lambda: vq.LevelDropout(0.0), ValueError, "LevelDropout.probability must be above 0, got 0"),
    (lambda: vq.LevelDropout(1.5), ValueError, "LevelDropout.probability must be in [0, 1], got"),
    (lambda: vq.LevelDropout(keep=0), ValueError, "LevelDropout.keep must be at least 1, got 0"),
    (lambda: vq.LevelDropout(multiple_of=0), ValueError, "LevelDropout.multiple_of must be at le"),
    (lambda: vq.LevelDropout(seed=0.5), TypeError, "LevelDropout.seed must be an integer, got"),
    (lambda: _residual(0.5), TypeError, "dropout must be LevelDropout(...) or None, got 0.5"),
    (
        lambda: _residual(vq.LevelDropout(keep=5)),
        ValueError,
        "dropout.keep must be at most levels=4, got 5",
    ),
    (
        lambda: _residual(vq.LevelDropout(multiple_of=8)),
        ValueError,
        "dropout.multiple_of must be at most levels=4, got 8",
    ),
]


@pytest.mark.parametrize(("make", "kind", "message"), REFUSED)
def test_bad_options_are_refused(make: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=f"^{re.escape(message)}"):
        make()
