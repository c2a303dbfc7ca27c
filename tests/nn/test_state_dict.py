"""The state dict: complete, strict, and enough to go on bit for bit."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from modules import (
    UPDATES,
    assert_same_state,
    batches,
    make_optimizer,
    quantizer,
    snapshot,
    train,
)
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import vqkernels as vq

all_updates = pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES)


@all_updates
def test_it_loads_strictly_with_pending_statistics(update: vq.EMA | vq.Gradient | None) -> None:
    module, other = quantizer(update=update), quantizer(seed=9, update=update)
    train(module, batches(4))
    other.load_state_dict(module.state_dict(), strict=True)
    assert_same_state(other, snapshot(module))


@pytest.mark.parametrize("k", [0, 1, 4], ids=["before init", "after init", "later"])
@pytest.mark.parametrize("metric", ["l2", "cosine"])
@all_updates
def test_k_plus_m_steps_equal_k_steps_save_load_m_steps(
    update: vq.EMA | vq.Gradient | None, metric: str, k: int
) -> None:
    xs = batches(9)
    options = {"update": update, "metric": metric, "estimator": "rotation"}
    whole = quantizer(**options)
    expected = train(whole, xs, make_optimizer(whole))

    first = quantizer(**options)
    optimizer = make_optimizer(first)
    train(first, xs[:k], optimizer)
    file = io.BytesIO()
    torch.save([first.state_dict(), optimizer and optimizer.state_dict()], file)
    file.seek(0)
    states = torch.load(file, weights_only=True)

    second = quantizer(seed=9, **options)
    second.load_state_dict(states[0])
    optimizer = make_optimizer(second)
    if optimizer is not None:
        optimizer.load_state_dict(states[1])
    outs = train(second, xs[k:], optimizer)

    assert_same_state(second, snapshot(whole))
    for out, wanted in zip(outs, expected[k:], strict=True):
        assert torch.equal(out.quantized, wanted.quantized)
        assert torch.equal(out.loss, wanted.loss)


def test_a_loaded_codebook_is_not_initialised_again() -> None:
    module, other = quantizer(), quantizer(seed=9)
    train(module, batches(1))
    module.flush()
    other.load_state_dict(module.state_dict())
    other(batches(1, seed=75)[0])
    assert torch.equal(other.codebook, module.codebook)


def test_an_uninitialised_state_makes_a_trained_module_fresh() -> None:
    module = quantizer()
    fresh = snapshot(module)
    train(module, batches(2))
    module.load_state_dict(fresh)
    again = quantizer()
    (x,) = batches(1, seed=75)
    module(x)
    again(x)
    assert_same_state(module, snapshot(again))


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("other", [{"k": 8}, {"d": 5}])
@all_updates
def test_a_load_of_another_size_raises_and_changes_nothing(
    update: vq.EMA | vq.Gradient | None, other: dict[str, int], assign: bool
) -> None:
    module = quantizer(update=update)
    train(module, batches(3))
    before = snapshot(module)
    with pytest.raises(RuntimeError, match=r"codebook must have shape \(16, 6\), got"):
        module.load_state_dict(quantizer(update=update, **other).state_dict(), assign=assign)
    assert_same_state(module, before)
    module(batches(1)[0])


@pytest.mark.parametrize("wrapped", [False, True], ids=["itself", "in a model"])
@pytest.mark.parametrize("assign", [False, True])
def test_one_level_of_another_size_changes_no_level(assign: bool, wrapped: bool) -> None:
    residual = vq.nn.ResidualVQ(quantizer, levels=3)
    module: nn.Module = nn.Sequential(residual) if wrapped else residual
    train(residual, batches(3))
    before = snapshot(module)
    state = snapshot(module)
    for value in state.values():
        value.add_(1)
    name = "0.quantizers.1.codebook" if wrapped else "quantizers.1.codebook"
    state[name] = torch.zeros(8, 6)
    message = rf"{name} must have shape \(16, 6\), got \(8, 6\)"
    with pytest.raises(RuntimeError, match=message):
        module.load_state_dict(state, assign=assign)
    assert_same_state(module, before)


@pytest.mark.parametrize(
    ("saved", "loading", "keys"),
    [
        ({}, {"update": vq.Gradient()}, "Unexpected.*embed_sum.*pending_sums"),
        ({"update": None}, {}, "Missing.*cluster_size.*embed_sum"),
        ({"revive": None}, {}, "Missing.*pending_rows"),
    ],
    ids=["EMA to Gradient", "frozen to EMA", "without revival to with"],
)
def test_a_load_across_options_is_refused_or_partial(
    saved: dict[str, Any], loading: dict[str, Any], keys: str
) -> None:
    """torch does not tell a module whether a load is strict; it names the keys itself."""
    source, module = quantizer(1, init="normal", **saved), quantizer(init="normal", **loading)
    with pytest.raises(RuntimeError, match=keys):
        module.load_state_dict(source.state_dict())
    module.load_state_dict(source.state_dict(), strict=False)
    assert torch.equal(module.codebook, source.codebook)


def test_a_missing_key_raises_under_strict() -> None:
    module = quantizer()
    state = module.state_dict()
    del state["pending_sums"]
    with pytest.raises(RuntimeError, match="pending_sums"):
        module.load_state_dict(state)


def test_flags_are_integers() -> None:
    """bool buffers break AveragedModel."""
    state = quantizer(frozen=torch.arange(16) < 3).state_dict()
    for name in ("pending_steps", "initialised", "clock", "idle", "revived", "frozen"):
        assert state[name].dtype == torch.int64


@pytest.mark.parametrize("wrap", [False, True], ids=["", "residual"])
@all_updates
@pytest.mark.parametrize("how", ["deepcopy", "pickle", "torch.save"])
def test_copies_go_on_like_the_original(
    how: str, update: vq.EMA | vq.Gradient | None, wrap: bool
) -> None:
    module: Any = quantizer(update=update)
    if wrap:
        module = vq.nn.ResidualVQ(lambda: quantizer(update=update), levels=2)
    train(module, batches(3))
    if how == "deepcopy":
        copied = copy.deepcopy(module)
    elif how == "pickle":
        copied = pickle.loads(pickle.dumps(module))
    else:
        file = io.BytesIO()
        torch.save(module, file)
        file.seek(0)
        copied = torch.load(file, weights_only=False)
    for x in batches(2, seed=76):
        assert torch.equal(copied(x).quantized, module(x).quantized)
    assert_same_state(copied, snapshot(module))


@all_updates
@pytest.mark.parametrize("ema", [False, True], ids=["mean", "ema"])
def test_averaged_model_with_buffers(ema: bool, update: vq.EMA | vq.Gradient | None) -> None:
    model = nn.Sequential(nn.Linear(6, 6), quantizer(update=update))
    averaged = AveragedModel(
        model, use_buffers=True, multi_avg_fn=get_ema_multi_avg_fn(0.9) if ema else None
    )
    for x in batches(4):
        model(x)
        averaged.update_parameters(model)
    averaged.eval()
    out = averaged(x)
    quantizer_copy = averaged.module[1]
    assert quantizer_copy.initialised == 1
    assert out.quantized.isfinite().all()
    assert torch.equal(quantizer_copy.decode(out.indices), out.quantized)


def test_two_quantizers_share_no_state() -> None:
    first, second = quantizer(), quantizer()
    before = snapshot(second)
    train(first, batches(3))
    first.flush()
    assert_same_state(second, before)
