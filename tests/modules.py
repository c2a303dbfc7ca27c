"""What several tests of the module need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cases
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import vqkernels as vq

K, D = 16, 6

UPDATES: dict[str, vq.EMA | vq.Gradient | None] = {
    "EMA": vq.EMA(decay=0.8),
    "EMA every 3": vq.EMA(decay=0.8, every=3),
    "Gradient": vq.Gradient(),
    "frozen": None,
}


def quantizer(seed: int = 0, **options: Any) -> vq.nn.VectorQuantizer:
    """A small module; the same seed gives the same codebook."""
    k, d = options.pop("k", K), options.pop("d", D)
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    module = vq.nn.VectorQuantizer(k, d, **options)
    torch.set_rng_state(state)
    return module


def made(**options: Any) -> Callable[[], vq.nn.VectorQuantizer]:
    """What wrappers take as ``make``: the same codebooks in the same order, all different."""
    seeds = iter(range(100, 200))
    return lambda: quantizer(next(seeds), **options)


def projected(module: nn.Module, in_dim: int, **options: Any) -> vq.nn.Projected:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return vq.nn.Projected(module, in_dim, **options)


def _residual(shared: bool = False, **options: Any) -> vq.nn.ResidualVQ:
    return vq.nn.ResidualVQ(made(**options), 2, shared=shared)


def _groups(shared: bool = False, **options: Any) -> vq.nn.GroupedVQ:
    return vq.nn.GroupedVQ(made(**options), 2, shared=shared)


def _grouped_residual(shared: bool = False, **options: Any) -> vq.nn.GroupedVQ:
    make = made(**options)
    return vq.nn.GroupedVQ(lambda: vq.nn.ResidualVQ(make, 2), 2, shared=shared)


WIDTH = 12
# Every kind of quantizer, of WIDTH channels; options are those of VectorQuantizer.
KINDS: dict[str, Callable[..., nn.Module]] = {
    "plain": lambda **o: quantizer(d=WIDTH, **o),
    "cosine": lambda **o: quantizer(d=WIDTH, metric="cosine", estimator="rotation", **o),
    "residual": lambda **o: _residual(d=WIDTH, **o),
    "shared residual": lambda **o: _residual(shared=True, d=WIDTH, **o),
    "groups": lambda **o: _groups(d=6, **o),
    "cosine groups": lambda **o: _groups(d=6, metric="cosine", **o),
    "shared groups": lambda **o: _groups(shared=True, d=6, **o),
    "grouped residual": lambda **o: _grouped_residual(d=6, **o),
    "shared grouped residual": lambda **o: _grouped_residual(shared=True, d=6, **o),
    "projected": lambda **o: projected(quantizer(d=4, **o), WIDTH),
    "projected cosine": lambda **o: projected(quantizer(d=4, metric="cosine", **o), WIDTH),
    "heads": lambda **o: projected(_groups(d=4, **o), WIDTH),
    "shared heads": lambda **o: projected(_groups(shared=True, d=4, **o), WIDTH, bias=False),
    "nested": lambda **o: projected(_grouped_residual(d=4, **o), WIDTH),
}


def batches(count: int, n: int = 64, d: int = D, seed: int = 70) -> list[Tensor]:
    g = cases.generator(seed)
    return [torch.randn(n, d, generator=g) for _ in range(count)]


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same_state(module: nn.Module, expected: dict[str, Tensor]) -> None:
    found = module.state_dict()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
        assert found[name].dtype == value.dtype, name


def train(
    module: vq.nn.VectorQuantizer, xs: list[Tensor], optimizer: Any = None, **options: Any
) -> list[vq.VQOutput]:
    """Training steps; with ``optimizer`` it also steps."""
    outs = []
    for x in xs:
        x = x.clone().requires_grad_()
        out = module(x, **options)
        if out.loss.requires_grad:
            out.loss.backward()
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad()
        outs.append(out)
    return outs


def make_optimizer(module: nn.Module) -> torch.optim.Optimizer | None:
    parameters = list(module.parameters())
    return torch.optim.Adam(parameters, lr=0.05) if parameters else None


def assert_checkpointed_as_plain(make: Callable[[], nn.Module], reentrant: bool) -> None:
    """Gradients and state of steps in a checkpointed region are those of plain steps."""
    states, gradients = [], []
    for mode in (None, reentrant):
        module = make()

        def region(x: Tensor, module: nn.Module = module) -> tuple[Tensor, Tensor]:
            out = module(x.tanh())
            return out.quantized, out.loss

        found = []
        for x in batches(5):
            x.requires_grad_()
            results = region(x) if mode is None else checkpoint(region, x, use_reentrant=mode)
            (results[0].square().sum() + results[1]).backward()
            found.append(x.grad)
        states.append(snapshot(module))
        gradients.append(found)
    assert_same_state(module, states[0])
    for first, second in zip(*gradients, strict=True):
        assert torch.equal(first, second)
