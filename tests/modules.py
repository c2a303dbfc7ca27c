"""What several tests of the module need."""

from __future__ import annotations

from typing import Any

import cases
import torch
from torch import Tensor, nn

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
