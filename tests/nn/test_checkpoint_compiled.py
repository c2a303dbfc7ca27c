"""Checkpointing and compilation, one inside of the other: the same step as without them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from modules import batches, quantizer, snapshot
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import vqkernels as vq

pytestmark = pytest.mark.filterwarnings("ignore")
STEPS = 3

MODULES: dict[str, Callable[[], nn.Module]] = {
    "EMA": quantizer,
    "Gradient, cosine, rotation": lambda: quantizer(
        update=vq.Gradient(), metric="cosine", estimator="rotation"
    ),
    "residual": lambda: vq.nn.ResidualVQ(quantizer, levels=2),
}
NESTINGS = ["compile(checkpoint)", "checkpoint(compile)", "both"]
CASES = [("EMA", nesting, reentrant) for nesting in NESTINGS for reentrant in (False, True)]
CASES += [(name, "both", False) for name in MODULES if name != "EMA"]


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def _compile(function: Callable[..., Any], backend: str) -> Callable[..., Any]:
    return torch.compile(function, backend=backend, fullgraph=True)


class _Model(nn.Module):
    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.encoder = nn.Linear(6, 6)
        self.quantizer = make()
        self.wrapped: Callable[..., Any] = self.region

    def region(self, z: Tensor) -> tuple[Tensor, Tensor]:
        out = self.quantizer(z.tanh() * 1.5)
        return out.quantized * 2.0, out.loss

    def forward(self, x: Tensor) -> Tensor:
        quantized, loss = self.wrapped(self.encoder(x))
        return quantized.square().mean() + loss


def _train(
    make: Callable[[], nn.Module], nesting: str, reentrant: bool, backend: str
) -> tuple[dict[str, Tensor], list[Tensor]]:
    torch.manual_seed(0)
    model = _Model(make)
    call: Callable[..., Any] = model
    if nesting in ("checkpoint(compile)", "both"):
        model.wrapped = _compile(model.wrapped, backend)
    if nesting != "plain":
        inner = model.wrapped
        model.wrapped = lambda z: checkpoint(inner, z, use_reentrant=reentrant)
    if nesting in ("compile(checkpoint)", "both"):
        call = _compile(model, backend)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    gradients = []
    for x in batches(STEPS):
        call(x).backward()
        gradients += [p.grad.clone() for p in model.parameters()]
        optimizer.step()
        optimizer.zero_grad()
    return snapshot(model), gradients


def _assert_same(got: tuple[dict, list], expected: tuple[dict, list]) -> None:
    """k-means runs in the first step, revival in the later ones; the clock counts the moves."""
    (state, gradients), (wanted_state, wanted_gradients) = got, expected
    for name, value in wanted_state.items():
        assert torch.equal(state[name], value), name
    for gradient, wanted in zip(gradients, wanted_gradients, strict=True):
        assert torch.equal(gradient, wanted)
    clocks = [int(value) for name, value in state.items() if name.endswith("clock")]
    assert set(clocks) == {STEPS - 1}


@pytest.mark.parametrize(("name", "nesting", "reentrant"), CASES)
def test_every_nesting_computes_the_plain_step(name: str, nesting: str, reentrant: bool) -> None:
    make = MODULES[name]
    _assert_same(_train(make, nesting, reentrant, "aot_eager"), _train(make, "plain", False, ""))


def test_two_forwards_in_a_compiled_checkpoint_are_refused_by_torch() -> None:
    """The codebook is an input of the compiled region that was written before its backward."""
    model = _Model(lambda: quantizer(init="normal"))
    model.wrapped = lambda z: checkpoint(model.region, z, use_reentrant=False)
    call = _compile(model, "aot_eager")
    first, second = batches(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (call(first) + call(second)).backward()
