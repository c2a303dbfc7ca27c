"""Codebook, counts and sums stay float32 whatever happens to the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cases
import oracle
import pytest
import torch
from modules import UPDATES, D, K, assert_same_state, batches, quantizer, snapshot, train
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

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


OTHERS: dict[str, Callable[[], nn.Module]] = {
    "FSQ": lambda: vq.nn.FSQ([4] * D, preserve_symmetry=True),
    "LFQ": lambda: vq.nn.LFQ(D),
    "SimVQ": lambda: vq.nn.SimVQ(K, D),
    "IBQ": lambda: vq.nn.IBQ(K, D),
    "GumbelVQ": lambda: vq.nn.GumbelVQ(K, D),
    "RandomProjectionVQ": lambda: vq.nn.RandomProjectionVQ(K, D, 3),
}
others = pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)


@others
@pytest.mark.parametrize("assign", [False, True])
def test_a_bfloat16_file_is_widened_for_the_modules_inside_too(
    make: Callable[[], nn.Module], assign: bool
) -> None:
    saved = {
        name: value.bfloat16() if value.is_floating_point() else value
        for name, value in make().state_dict().items()
    }
    module = make()
    module.load_state_dict(dict(saved), assign=assign)
    for name, value in module.state_dict().items():
        assert value.dtype in (torch.float32, torch.int64), name
        assert torch.equal(value, saved[name].to(value.dtype)), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_half_precision_model_trains(dtype: torch.dtype) -> None:
    module = quantizer().to(dtype)
    outs = train(module, [x.to(dtype) for x in batches(3)])
    assert outs[-1].quantized.dtype == dtype
    assert outs[-1].loss.dtype == torch.float32
    assert module.codebook.dtype == torch.float32


MODULES: dict[str, Callable[[], nn.Module]] = {
    **{name: lambda update=update: quantizer(update=update) for name, update in UPDATES.items()},
    "cosine, rotation": lambda: quantizer(metric="cosine", estimator="rotation"),
    "residual": lambda: vq.nn.ResidualVQ(quantizer, levels=2),
    "residual, shared": lambda: vq.nn.ResidualVQ(quantizer, levels=2, shared=True),
}


def _devices() -> list[str]:
    """The device types that autocast takes in this build of torch, with and without a device."""
    return [kind for kind in KINDS if torch.amp.is_autocast_available(kind)]


KINDS = ("cpu", "cuda", "xpu", "mps", "hpu", "mtia", "maia", "xla", "ipu")


def _results(call: Callable[[Tensor], vq.VQOutput], x: Tensor) -> list[Tensor]:
    leaf = x.clone().requires_grad_()
    out = call(leaf)
    (out.quantized.float().square().sum() + out.loss).backward()
    assert leaf.grad is not None
    return [*tree_leaves(out), leaf.grad]


def _assert_equal(got: list[Tensor], expected: list[Tensor]) -> None:
    for value, wanted in zip(got, expected, strict=True):
        assert value.dtype == wanted.dtype
        assert torch.equal(value, wanted)


@pytest.mark.filterwarnings("ignore:.*utocast")
@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
@pytest.mark.parametrize("device", _devices())
def test_autocast_changes_no_bit_of_a_module(make: Callable[[], nn.Module], device: str) -> None:
    """In training with its k-means, moves and revivals, in eval, and in the backward."""
    plain, module = make(), make()
    for number, x in enumerate(batches(5)):
        for each in (plain, module):
            each.train(number < 3)
        expected = [*_results(plain, x), plain.encode(x), plain.decode(plain.encode(x))]
        with torch.autocast(device, torch.bfloat16):
            got = [*_results(module, x), module.encode(x), module.decode(module.encode(x))]
        _assert_equal(got, expected)
    assert_same_state(module, snapshot(plain))


FUNCTIONS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "nearest_code": vq.nearest_code,
    "cosine": lambda x, codes: vq.nearest_code(x, codes, metric="cosine"),
    "vector_quantize": vq.vector_quantize,
    "residual_quantize": lambda x, codes: vq.residual_quantize(x, codes, levels=3),
    "lookup": lambda x, codes: vq.lookup(vq.nearest_code(x, codes).indices, codes),
    "code_sums": lambda x, codes: vq.code_sums(x, vq.nearest_code(x, codes).indices, len(codes)),
    "prepare": lambda x, codes: vq.nearest_code(x, vq.prepare(codes)),
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
@pytest.mark.parametrize("name", ["gaussian", "near ties", "shifted by 1000"])
def test_autocast_changes_no_bit_of_a_function(
    name: str, function: Callable[[Tensor, Tensor], Any]
) -> None:
    x, codes = cases.search(name)
    expected = function(x, codes)
    with torch.autocast("cpu", torch.bfloat16):
        got = function(x, codes)
    _assert_equal(tree_leaves(got), tree_leaves(expected))


@pytest.mark.parametrize("autocast", [False, True], ids=["", "autocast"])
@pytest.mark.parametrize("metric", cases.METRICS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_rows_get_the_exact_nearest_code_of_what_they_hold(
    dtype: torch.dtype, metric: str, autocast: bool, backend: str
) -> None:
    """Rounded to eight bits many rows stand between codes: a search in bfloat16 misses them."""
    x, codes = cases.search("gaussian")
    x = x.to(dtype)
    exact, _ = oracle.nearest_code(x, codes, metric)
    module = quantizer(k=len(codes), d=x.shape[1], init=codes, metric=metric, backend=backend)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = [vq.nearest_code(x, codes, metric=metric, backend=backend).indices]
        found += [vq.vector_quantize(x, codes, metric=metric, backend=backend).indices]
        found += [module.eval()(x).indices, module.train()(x).indices, module.encode(x)]
        if metric == "l2":
            found += [vq.residual_quantize(x, codes[None], backend=backend).indices[:, 0]]
    for indices in found:
        assert torch.equal(indices, torch.from_numpy(exact))


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


@others
@pytest.mark.parametrize("default", [torch.bfloat16, torch.float64], ids=str)
def test_the_default_dtype_decides_nothing(
    default: torch.dtype, make: Callable[[], nn.Module]
) -> None:
    x = batches(1)[0]
    results = []
    for dtype in (torch.float32, default):
        torch.manual_seed(5)
        torch.set_default_dtype(dtype)
        try:
            module = make()
            out = module(x)
            results.append([*module.state_dict().values(), *tree_leaves(out)])
            results[-1].append(module.decode(out.indices))
        finally:
            torch.set_default_dtype(torch.float32)
    for value, wanted in zip(*reversed(results), strict=True):
        assert value.dtype == wanted.dtype
        assert torch.equal(value, wanted)
