"""assign=Sample(...): drawn codes, a new draw in every step and the same one in a recompute."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from modules import UPDATES, assert_same_state, batches, make_optimizer, quantizer, snapshot, train
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import vqkernels as vq


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_codes_are_drawn_with_their_probability(metric: str) -> None:
    """20000 draws for one vector; a count is within five standard deviations of its mean."""
    count, temperature = 20000, 3.0
    module = quantizer(
        k=5, d=3, init="normal", update=None, metric=metric, assign=vq.Sample(temperature)
    )
    x = torch.tensor([0.3, -0.8, 0.5])
    if metric == "l2":
        logits = -(x - module.codebook).double().square().sum(dim=1)
    else:
        logits = F.normalize(module.codebook.double(), dim=1) @ F.normalize(x.double(), dim=0)
    p = (logits / temperature).softmax(dim=0)
    counts = module(x.expand(count, 3)).usage.counts
    assert (p > 0.01).all()
    assert ((counts - count * p).abs() < 5.0 * (count * p * (1.0 - p)).sqrt()).all()


@pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES)
def test_every_step_draws_anew_and_reads_no_generator(update: Any) -> None:
    module = quantizer(update=update, init="normal", revive=None, assign=vq.Sample(2.0))
    (x,) = batches(1)
    generator = torch.get_rng_state()
    drawn = [module(x).indices for _ in range(4)]
    assert torch.equal(torch.get_rng_state(), generator)
    for step, indices in enumerate(drawn):
        for other in drawn[:step]:
            assert (indices != other).sum() > 16  # of 64; independent draws agree on a few


def test_another_seed_draws_something_else() -> None:
    (x,) = batches(1)
    draws = [
        quantizer(init="normal", assign=vq.Sample(2.0, seed=seed))(x).indices for seed in (0, 0, 1)
    ]
    assert torch.equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).sum() > 16


def test_the_step_is_that_of_the_drawn_code() -> None:
    module = quantizer(init="normal", update=vq.EMA(decay=0.5), revive=None, assign=vq.Sample(2.0))
    (x,) = batches(1)
    x.requires_grad_()
    mask = torch.arange(64) % 3 != 0
    out = module(x, mask)
    codes, kept = module.codebook[out.indices], mask[:, None]
    assert torch.equal(out.indices == -1, ~mask)
    assert torch.equal(out.quantized, torch.where(kept, codes, x))
    assert torch.equal(out.usage.counts, out.indices[mask].bincount(minlength=16))
    assert torch.equal(module.decode(out.indices), torch.where(kept, codes, 0.0))
    sums = torch.zeros(16, 6).index_add_(0, out.indices[mask], x.detach()[mask])
    torch.testing.assert_close(module.pending_sums, sums)
    error = (x - codes)[mask].double().square().mean()
    torch.testing.assert_close(out.loss.double(), 0.25 * error)
    torch.autograd.backward([out.quantized, out.loss], [torch.ones_like(x), None])
    factor = 0.25 * 2.0 / (mask.sum() * 6)
    expected = torch.where(kept, factor * (x - codes), 0.0) + 1.0
    torch.testing.assert_close(x.grad, expected)


def test_eval_mode_and_encode_take_the_nearest() -> None:
    module = quantizer(init="normal", assign=vq.Sample(2.0))
    (x,) = batches(1)
    nearest = vq.nearest_code(x, module.codebook).indices
    assert not torch.equal(module(x).indices, nearest)
    assert torch.equal(module.encode(x), nearest)
    module.eval()
    before = snapshot(module)
    assert torch.equal(module(x).indices, vq.nearest_code(x, module.codebook).indices)
    assert_same_state(module, before)


def test_a_low_temperature_draws_the_nearest() -> None:
    module = quantizer(init="normal", assign=vq.Sample(1e-6))
    (x,) = batches(1)
    assert torch.equal(module(x).indices, vq.nearest_code(x, module.codebook).indices)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_masked_and_nonfinite_rows_touch_nothing(metric: str) -> None:
    states = []
    for junk in (0.0, torch.nan, torch.inf):
        module = quantizer(assign=vq.Sample(2.0), metric=metric)
        for x in batches(3):
            x[::4] = junk
            out = module(x, torch.arange(64) % 4 != 0)
        assert (out.indices[::4] == -1).all()
        states.append(snapshot(module))
    for state in states[1:]:
        assert all(torch.equal(value, states[0][name]) for name, value in state.items())
    (x,) = batches(1)
    x[5] = torch.nan
    out = module(x)
    assert out.indices[5] == 0
    assert out.quantized[5].isnan().all()
    assert out.usage.counts.sum() == 63


@pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES)
def test_a_saved_state_draws_on(update: Any) -> None:
    module = quantizer(update=update, assign=vq.Sample(2.0))
    train(module, batches(3))
    other = quantizer(seed=9, update=update, assign=vq.Sample(2.0))
    other.load_state_dict(copy.deepcopy(module.state_dict()))
    steps = zip(train(module, batches(2)), train(other, batches(2)), strict=True)
    assert all(torch.equal(first.indices, second.indices) for first, second in steps)
    assert_same_state(other, snapshot(module))


def _train(update: Any, reentrant: bool | None, compiled: bool) -> list[Tensor]:
    torch.manual_seed(0)
    encoder = nn.Linear(6, 6)
    module = quantizer(update=update, assign=vq.Sample(2.0), estimator="rotation", init="normal")
    optimizer = make_optimizer(nn.ModuleList([encoder, module]))

    def region(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        out = module(z.tanh())
        return out.quantized * 2.0, out.loss, out.indices

    def step(x: Tensor) -> tuple[Tensor, Tensor]:
        z = encoder(x)
        if reentrant is None:
            quantized, loss, indices = region(z)
        else:
            quantized, loss, indices = checkpoint(region, z, use_reentrant=reentrant)
        return quantized.square().mean() + loss, indices

    call = torch.compile(step, backend="aot_eager", fullgraph=True) if compiled else step
    results = []
    for x in batches(5):
        loss, indices = call(x)
        loss.backward()
        optimizer.step()
        results += [indices, encoder.weight.grad.clone()]
        optimizer.zero_grad()
    return [*results, *snapshot(module).values()]


@pytest.mark.parametrize(
    ("reentrant", "compiled"), [(False, False), (True, False), (None, True), (False, True)]
)
@pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES)
def test_checkpointed_and_compiled_steps_draw_as_the_plain_one(
    update: Any, reentrant: bool | None, compiled: bool
) -> None:
    torch._dynamo.reset()
    expected = _train(update, None, False)
    for got, value in zip(_train(update, reentrant, compiled), expected, strict=True):
        assert torch.equal(got, value)
