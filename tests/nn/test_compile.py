"""torch.compile(fullgraph=True): one graph, the same results, no recompile per batch size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from modules import K, assert_same_state, batches, make_optimizer, quantizer, snapshot
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

import vqkernels as vq

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def _compiled(
    function: Callable[..., Any], backend: str = "aot_eager", **options: Any
) -> tuple[Callable[..., Any], CompileCounterWithBackend]:
    counter = CompileCounterWithBackend(backend)
    return torch.compile(function, backend=counter, fullgraph=True, **options), counter


def _steps(module: nn.Module, call: Callable[..., Any], xs: list[Tensor], *mask: Tensor) -> list:
    """Training steps; what each computed."""
    optimizer, results = make_optimizer(module), []
    for x in xs:
        x = x.clone().requires_grad_()
        out = call(x, *mask)
        (out.quantized.square().sum() + out.loss).backward()
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad()
        results.append([out.quantized.detach(), out.indices, out.loss.detach(), x.grad])
    return results


OPTIONS: dict[str, dict[str, Any]] = {
    "EMA": {},
    "EMA every 2, cosine, rotation": {
        "update": vq.EMA(every=2),
        "metric": "cosine",
        "estimator": "rotation",
    },
    "Gradient": {"update": vq.Gradient()},
    "Gradient, some codes frozen": {"update": vq.Gradient(), "frozen": torch.arange(K) % 3 == 0},
    "frozen": {"update": None},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_compiled_training_step_equals_the_eager_one(options: dict[str, Any]) -> None:
    """With k-means init in the first step and revival in the later ones."""
    eager, module = quantizer(**options), quantizer(**options)
    xs = batches(5)
    call, _ = _compiled(module)
    expected = _steps(eager, eager, xs)
    got = _steps(module, call, xs)
    for step, wanted in zip(got, expected, strict=True):
        for value, other in zip(step, wanted, strict=True):
            assert torch.equal(value, other)
    assert_same_state(module, snapshot(eager))


def test_inductor_compiles_the_training_step_too() -> None:
    eager, module = quantizer(), quantizer()
    xs = batches(3)
    call, _ = _compiled(module, "inductor")
    for step, wanted in zip(_steps(module, call, xs), _steps(eager, eager, xs), strict=True):
        assert torch.equal(step[1], wanted[1])
        assert torch.equal(step[0], wanted[0])
    assert_same_state(module, snapshot(eager))


SIZED: dict[str, Callable[[], nn.Module]] = {
    "EMA": quantizer,
    "cosine": lambda: quantizer(metric="cosine", update=vq.EMA(every=2)),
    "Gradient": lambda: quantizer(update=vq.Gradient(), estimator="rotation"),
    "residual": lambda: vq.nn.ResidualVQ(quantizer, levels=2),
}


@pytest.mark.parametrize(
    ("name", "masked"),
    [*((name, False) for name in SIZED), ("EMA", True), ("residual", True)],
)
def test_batch_sizes_do_not_recompile(name: str, masked: bool) -> None:
    """Init, steady state static, steady state dynamic: then every size is served."""
    module = SIZED[name]()
    call, counter = _compiled(module, "eager")

    def step(n: int) -> None:
        (x,) = batches(1, n)
        out = call(x.requires_grad_(), torch.arange(n) % 3 != 0 if masked else None)
        (out.quantized.sum() + out.loss).backward()

    for n in (64, 64, 80):
        step(n)
    settled = counter.frame_count
    assert settled <= 3
    for n in (96, 65, 2048, 7, 33):
        step(n)
    assert counter.frame_count == settled


def test_batch_sizes_do_not_recompile_in_eval() -> None:
    module = quantizer()
    module(batches(1)[0])
    module.eval()
    call, counter = _compiled(lambda x: (module(x), module.decode(module.encode(x))), "eager")
    for n in (64, 80, 96, 65, 2048, 7):
        call(batches(1, n)[0])
    assert counter.frame_count == 2


def test_a_compiled_step_with_a_mask_revives_as_the_eager_one() -> None:
    init = batches(1, 16, seed=1)[0]
    init[8:] += 100.0
    options = {"init": init, "update": vq.EMA(decay=0.5)}
    eager, module = quantizer(**options), quantizer(**options)
    call, counter = _compiled(module)
    mask, xs = torch.arange(64) % 3 != 0, batches(6)
    expected = _steps(eager, eager, xs, mask)
    for step, wanted in zip(_steps(module, call, xs, mask), expected, strict=True):
        for value, other in zip(step, wanted, strict=True):
            assert torch.equal(value, other)
    assert module.codebook.max() < 50  # all of the far codes have been revived
    assert counter.frame_count == 1
    assert_same_state(module, snapshot(eager))


def test_masked_training_compiles() -> None:
    eager, module = quantizer(), quantizer()
    call, counter = _compiled(module)
    mask, xs = torch.arange(64) % 3 != 0, batches(3)
    expected = _steps(eager, eager, xs, mask)
    for step, wanted in zip(_steps(module, call, xs, mask), expected, strict=True):
        for value, other in zip(step, wanted, strict=True):
            assert torch.equal(value, other)
    assert counter.frame_count <= 3
    assert_same_state(module, snapshot(eager))


def test_a_first_batch_without_rows_leaves_the_init_to_a_later_one() -> None:
    module, eager = quantizer(), quantizer()
    call, _ = _compiled(module)
    for x in (batches(1)[0] * torch.nan, *batches(2)):
        call(x)
        eager(x)
    assert module.initialised == 1
    assert_same_state(module, snapshot(eager))


def test_kmeans_leaves_the_compiled_step_once_it_is_done() -> None:
    """Ten Lloyd iterations a step, thrown away, would be paid for ever."""
    module = quantizer()
    call, _ = _compiled(module)
    mask = torch.arange(64) % 3 != 0
    for x in batches(3):
        call(x, mask)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        call(batches(1)[0], mask)
    assert "vqkernels::kmeans_step_" not in {event.key for event in profile.key_averages()}


def test_eval_and_the_functions_compile() -> None:
    module = quantizer()
    for x in batches(2):
        module(x)
    module.eval()
    (x,) = batches(1, seed=77)

    def everything(x: Tensor) -> tuple[Any, ...]:
        out = module(x)
        counts, sums = vq.code_sums(x, out.indices, 16)
        return out, module.decode(module.encode(x)), counts, sums, vq.nearest_code(x, sums)

    call, _ = _compiled(everything)
    got, expected = call(x), everything(x)
    flat = torch.utils._pytree.tree_leaves
    for value, other in zip(flat(got), flat(expected), strict=True):
        assert torch.equal(value, other)
    assert torch.equal(got[0].usage.perplexity, expected[0].usage.perplexity)


def test_a_checkpointed_region_compiles_to_the_same_step() -> None:
    from torch.utils.checkpoint import checkpoint

    states = []
    for compiled in (False, True):
        module = quantizer()

        def step(x: Tensor, module: vq.nn.VectorQuantizer = module) -> Tensor:
            return checkpoint(lambda x: module(x * 1.5).quantized, x, use_reentrant=False).sum()

        call = _compiled(step)[0] if compiled else step
        for x in batches(4):
            call(x.requires_grad_()).backward()
        states.append(snapshot(module))
    for name, value in states[0].items():
        assert torch.equal(states[1][name], value), name


def test_modules_of_one_kind_share_their_compiled_code() -> None:
    counter = CompileCounterWithBackend("eager")
    torch._dynamo.reset()
    for seed in range(4):
        module = torch.compile(quantizer(seed), backend=counter, fullgraph=True)
        for x in batches(3):
            module(x)
    assert counter.frame_count == 2  # with and without the initialisation
