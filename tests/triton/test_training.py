"""Modules that train on interpreted Triton kernels, beside the same ones on the reference."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from backends import interpreted
from modules import UPDATES, batches, quantizer
from torch import Tensor, nn

import vqkernels as vq
from vqkernels.ops import dispatch

pytestmark = pytest.mark.skipif(not interpreted(), reason="needs TRITON_INTERPRET=1")

_STEPS = 5


def _trained(
    make: Callable[[str], nn.Module], backend: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[tuple[Tensor, ...]], dict[str, Tensor]]:
    """What every step returned, the gradient in x included, and the state in the end."""
    monkeypatch.setitem(dispatch._ORDER, "cpu", (backend, "reference"))
    module, steps = make(backend), []
    for x in batches(_STEPS, n=40):
        x = x.clone().requires_grad_()
        mask = torch.arange(40) % 5 != 2
        out = module(x, mask)
        (out.quantized.square().sum() + out.loss).backward()
        steps.append((out.indices, out.usage.counts, out.quantized, out.loss, x.grad))
    return steps, module.state_dict()


def _assert_same(make: Callable[[str], nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    """Integers are equal. A sum per code may round the other way once a step, no more: floats
    differ by an eps of the largest value for every step so far."""
    steps, state = _trained(make, "triton", monkeypatch)
    expected_steps, expected_state = _trained(make, "reference", monkeypatch)
    pairs = []
    for got, wanted in zip(steps, expected_steps, strict=True):
        pairs += zip(got, wanted, strict=True)
    assert state.keys() == expected_state.keys()
    pairs += [(state[name], expected_state[name]) for name in state]
    for got, expected in pairs:
        if not expected.is_floating_point():
            assert torch.equal(got, expected)
            continue
        eps = torch.finfo(torch.float32).eps * _STEPS
        assert torch.equal(got.isnan(), expected.isnan())
        error = (got - expected).nan_to_num(0.0).abs().max()
        assert error <= eps * expected.nan_to_num(0.0).abs().max()


@pytest.mark.parametrize("estimator", ["straight_through", "rotation"])
@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("update", UPDATES)
def test_a_quantizer_trains_as_on_the_reference(
    update: str, metric: str, estimator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(backend: str) -> vq.nn.VectorQuantizer:
        options = {"update": UPDATES[update], "metric": metric, "estimator": estimator}
        return quantizer(k=5, init="normal", backend=backend, **options)

    _assert_same(make, monkeypatch)


@pytest.mark.parametrize("dropout", [None, vq.LevelDropout()], ids=["all levels", "dropout"])
@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize("update", ["EMA", "Gradient"])
def test_a_residual_quantizer_trains_as_on_the_reference(
    update: str,
    shared: bool,
    dropout: vq.LevelDropout | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def make(backend: str) -> vq.nn.ResidualVQ:
        seeds = iter(range(3))
        options = {"k": 5, "init": "normal", "update": UPDATES[update], "backend": backend}
        return vq.nn.ResidualVQ(
            lambda: quantizer(next(seeds), **options), 3, shared=shared, dropout=dropout
        )

    _assert_same(make, monkeypatch)
