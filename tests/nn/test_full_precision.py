"""Codebook, counts and sums stay float32 whatever happens to the model."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from modules import UPDATES, assert_same_state, batches, quantizer, snapshot, train
from torch import nn

import vqkernels as vq

CASTS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "half": lambda module: module.half(),
    "bfloat16": lambda module: module.bfloat16(),
    "double": lambda module: module.double(),
    "to(float16)": lambda module: module.to(torch.float16),
    "to(device, bfloat16)": lambda module: module.to("cpu", torch.bfloat16),
    "type": lambda module: module.type(torch.bfloat16),
    "type by name": lambda module: module.type("torch.HalfTensor"),
    "float": lambda module: module.half().float(),
}


@pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES)
@pytest.mark.parametrize("cast", CASTS.values(), ids=CASTS)
def test_casts_change_no_bit_of_the_state(
    cast: Callable[[nn.Module], nn.Module], update: vq.EMA | vq.Gradient | None
) -> None:
    module = quantizer(update=update)
    train(module, batches(3))
    before = snapshot(module)
    parent = nn.Sequential(nn.Linear(3, 3), nn.Sequential(module))
    cast(parent)
    assert_same_state(module, before)
    assert isinstance(module.codebook, nn.Parameter) == isinstance(update, vq.Gradient)


def test_the_rest_of_the_model_is_cast() -> None:
    parent = nn.Sequential(nn.Linear(3, 3), quantizer()).half()
    assert parent[0].weight.dtype == torch.float16


def test_a_gradient_keeps_float32_too() -> None:
    module = quantizer(update=vq.Gradient())
    module(batches(1)[0]).loss.backward()
    gradient = module.codebook.grad.clone()
    module.half()
    assert module.codebook.grad.dtype == torch.float32
    assert torch.equal(module.codebook.grad, gradient)


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES)
def test_a_bfloat16_file_is_widened_on_the_way_in(
    update: vq.EMA | vq.Gradient | None, assign: bool
) -> None:
    module, other = quantizer(update=update), quantizer(seed=9, update=update)
    train(module, batches(2))
    saved = {
        name: value.bfloat16() if value.is_floating_point() else value
        for name, value in module.state_dict().items()
    }
    other.load_state_dict(saved, assign=assign)
    for name, value in other.state_dict().items():
        assert value.dtype == module.state_dict()[name].dtype, name
        assert torch.equal(value, saved[name].to(value.dtype)), name
    train(other, batches(2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_half_precision_model_trains(dtype: torch.dtype) -> None:
    module = quantizer().to(dtype)
    outs = train(module, [x.to(dtype) for x in batches(3)])
    assert outs[-1].quantized.dtype == dtype
    assert outs[-1].loss.dtype == torch.float32
    assert module.codebook.dtype == torch.float32


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_autocast_changes_nothing(metric: str, backend: str) -> None:
    plain, cast = (quantizer(metric=metric, backend=backend) for _ in range(2))
    for x in batches(3):
        expected = plain(x)
        with torch.autocast("cpu", torch.bfloat16):
            out = cast(x)
            assert torch.equal(cast.encode(x), expected.indices)
        assert torch.equal(out.indices, expected.indices)
        assert torch.equal(out.quantized, expected.quantized)
        assert torch.equal(out.loss, expected.loss)
    assert_same_state(cast, snapshot(plain))


def test_moving_to_another_device_keeps_the_dtype() -> None:
    module = quantizer().to(device="meta", dtype=torch.float16)
    assert module.codebook.device.type == "meta"
    assert module.codebook.dtype == torch.float32


@pytest.mark.parametrize("default", [torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("init", ["kmeans", "uniform", "normal"])
def test_the_default_dtype_does_not_decide_the_state(default: torch.dtype, init: str) -> None:
    torch.set_default_dtype(default)
    try:
        module = quantizer(init=init)
        module(torch.randn(64, 6, dtype=torch.float32))
        module.flush()
    finally:
        torch.set_default_dtype(torch.float32)
    for name, value in module.state_dict().items():
        assert value.dtype in (torch.float32, torch.int64), name
    assert module.codebook.isfinite().all()
