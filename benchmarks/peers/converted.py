"""The step of a quantizer inside a model: as its library has it, and after ``convert``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import vqkernels as vq
from benchmarks.peers import originals
from benchmarks.peers.originals import Original
from benchmarks.peers.provider import Call, Provider, UnavailableError
from benchmarks.peers.step import step_on


def before(x: Tensor, codebook: Tensor, module: str) -> Call:
    original = originals.find(module)
    return _step(original, original.make(codebook), x)


def after(x: Tensor, codebook: Tensor, module: str) -> Call:
    """The same module with the same codebook, in a model that is converted."""
    original = originals.find(module)
    try:
        model = nn.Sequential(original.make(codebook))
    except ImportError as error:
        raise UnavailableError(f"not installed: {error}") from error
    report = vq.convert(model)
    if report.left or not report.converted:
        raise RuntimeError(f"convert must replace {module}, got {report}")
    return _step(original, model[0], x)


def indices(found: Tensor) -> Tensor:
    """Of a matrix with a one per row, where it is."""
    return found.argmax(1) if found.is_floating_point() else found


def _step(original: Original, module: nn.Module, x: Tensor) -> Call:
    module.to(x.device)
    given = original.layout(x)
    if original.trains:

        def forward(z: Tensor) -> originals.Outputs:
            module.zero_grad()
            return original.call(module, z)

        return step_on(forward, given)

    @torch.no_grad()
    def encode_and_decode() -> Tensor:
        return original.call(module, given)[1]

    module.eval()
    return encode_and_decode


CONVERTED = (
    Provider("vqkernels", after, package="vqkernels", module="vqkernels", indices=indices),
    *(
        Provider(
            original.name,
            before,
            original.package,
            original.module,
            bytes_per_pair=original.bytes_per_pair,
            indices=indices,
        )
        for original in originals.ORIGINALS
    ),
)
