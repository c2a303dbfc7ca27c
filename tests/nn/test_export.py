"""torch.export: saved, loaded and run on another batch size, a program returns the same bits."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
import torch
from modules import batches, quantizer
from torch import Tensor, nn
from torch.export import Dim
from torch.utils._pytree import tree_leaves

import vqkernels as vq

pytestmark = pytest.mark.filterwarnings("ignore")

MODULES: dict[str, Callable[[], nn.Module]] = {
    "EMA": quantizer,
    "Gradient, cosine": lambda: quantizer(update=vq.Gradient(), metric="cosine"),
    "frozen": lambda: quantizer(update=None),
    "residual": lambda: vq.nn.ResidualVQ(quantizer, levels=2),
    "in a model": lambda: nn.Sequential(nn.Linear(6, 6), quantizer(estimator="rotation")),
}


class _Method(nn.Module):
    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__()
        self.module, self.name = module, name

    def forward(self, argument: Tensor) -> Tensor:
        return getattr(self.module, self.name)(argument)


def _exported(module: nn.Module, argument: Tensor) -> nn.Module:
    shapes = ({0: Dim("batch", min=1, max=1 << 20)},)
    program = torch.export.export(module, (argument,), dynamic_shapes=shapes)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    return torch.export.load(file).module()


def _trained(make: Callable[[], nn.Module]) -> nn.Module:
    module = make()
    for x in batches(3):
        module(x)
    return module.eval()


@pytest.mark.parametrize("name", [name for name in MODULES if name != "in a model"])
def test_encode_and_decode(name: str) -> None:
    module = _trained(MODULES[name])
    x, other = batches(1)[0], batches(1, 37, seed=77)[0]
    encode, decode = (_Method(module, method).eval() for method in ("encode", "decode"))
    indices = module.encode(other)
    assert torch.equal(_exported(encode, x)(other), indices)
    assert torch.equal(_exported(decode, module.encode(x))(indices), module.decode(indices))


@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
def test_the_forward_in_eval_with_its_named_output(make: Callable[[], nn.Module]) -> None:
    module = _trained(make)
    x, other = batches(1)[0], batches(1, 37, seed=77)[0]
    out, expected = _exported(module, x)(other), module(other)
    assert isinstance(out, vq.VQOutput)
    for value, wanted in zip(tree_leaves(out), tree_leaves(expected), strict=True):
        assert torch.equal(value, wanted)
    assert torch.equal(out.usage.perplexity, expected.usage.perplexity)
