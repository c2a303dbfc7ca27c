"""Codes that never move, among others that learn."""

from __future__ import annotations

import io

import pytest
import torch
from modules import K, assert_same_state, batches, make_optimizer, quantizer, snapshot, train

import vqkernels as vq

FROZEN = torch.arange(K) % 5 == 1  # 1, 6, 11
LEARNING = {"EMA": vq.EMA(decay=0.8), "Gradient": vq.Gradient()}

updates = pytest.mark.parametrize("update", LEARNING.values(), ids=LEARNING)
metrics = pytest.mark.parametrize("metric", ["l2", "cosine"])


def _quantizer(update: vq.EMA | vq.Gradient, **options: object) -> vq.nn.VectorQuantizer:
    """Every code, frozen or not, is soon dead by one of the limits if no row chooses it."""
    options = {"revive": vq.Revive(age=2.0), "frozen": FROZEN, **options}
    return quantizer(update=update, **options)


@metrics
@pytest.mark.parametrize("init", ["kmeans", "normal"])
@updates
def test_they_keep_their_bits_through_init_moves_and_revival(
    update: vq.EMA | vq.Gradient, init: str, metric: str
) -> None:
    module = _quantizer(update, init=init, metric=metric)
    with torch.no_grad():
        module.codebook[6] = -300.0  # far from the data, or opposite to all of it: dead
        module.codebook[7] = -300.0
    before = module.codebook.detach().clone()
    train(module, [x.abs() for x in batches(12)], make_optimizer(module))
    module.flush()
    assert torch.equal(module.codebook[FROZEN], before[FROZEN])
    assert (module.codebook != before)[~FROZEN].any(dim=1).all()
    assert module.idle[6] == 12 * 64
    assert init == "kmeans" or module.revived > 0


@metrics
def test_their_gradient_is_zero_and_that_of_the_others_as_without_them(metric: str) -> None:
    x, init = batches(1)[0], batches(1, K, seed=1)[0]
    options = {"update": vq.Gradient(), "init": init, "metric": metric}
    some, none = quantizer(frozen=FROZEN, **options), quantizer(**options)
    for module in (some, none):
        out = module(x)
        (out.loss + module.decode(out.indices).square().sum()).backward()
    assert none.codebook.grad[FROZEN].any()
    assert not some.codebook.grad[FROZEN].any()
    assert torch.equal(some.codebook.grad[~FROZEN], none.codebook.grad[~FROZEN])


@updates
def test_they_are_chosen_like_the_others(update: vq.EMA | vq.Gradient) -> None:
    init, (x,) = batches(1, K, seed=1)[0], batches(1)
    outs = [quantizer(update=update, init=init, frozen=mask)(x) for mask in (FROZEN, None)]
    assert torch.equal(outs[0].indices, outs[1].indices)
    assert torch.equal(outs[0].loss, outs[1].loss)


def test_kmeans_spends_the_other_codes_on_what_they_leave() -> None:
    """Two clusters, one of them under a frozen code: the other code has one to itself."""
    module = quantizer(k=2, frozen=torch.tensor([True, False]), revive=None)
    module.codebook[0] = 10.0
    (x,) = batches(1)
    module.init_codebook(torch.cat([x, x + 10.0]))
    assert (module.codebook[0] == 10.0).all()
    error = (module.codebook[1] - x.double().mean(dim=0)).abs().max()
    assert error <= 2 * torch.finfo(torch.float32).eps  # of a mean below 1: sum and quotient


@metrics
@updates
def test_k_plus_m_steps_equal_k_steps_save_load_m_steps(
    update: vq.EMA | vq.Gradient, metric: str
) -> None:
    xs = batches(9)
    whole, first = (_quantizer(update, metric=metric) for _ in range(2))
    second = _quantizer(update, metric=metric, seed=9, frozen=~FROZEN)
    train(whole, xs)
    train(first, xs[:4])
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True), strict=True)
    train(second, xs[4:])
    assert_same_state(second, snapshot(whole))


@updates
def test_levels_of_a_residual_quantizer_may_freeze_their_own(
    update: vq.EMA | vq.Gradient,
) -> None:
    masks = iter([None, FROZEN, ~FROZEN])
    module = vq.nn.ResidualVQ(lambda: _quantizer(update, frozen=next(masks)), levels=3)
    before = [level.codebook.detach().clone() for level in module.quantizers]
    train(module, batches(8), make_optimizer(module))
    module.flush()
    for level, codes, mask in zip(
        module.quantizers, before, [FROZEN & ~FROZEN, FROZEN, ~FROZEN], strict=True
    ):
        assert torch.equal(level.codebook[mask], codes[mask])
        assert (level.codebook != codes)[~mask].any(dim=1).all()
