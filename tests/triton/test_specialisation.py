"""Another batch size must not compile anything: what Triton compiles for is the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

import vqkernels as vq
from benchmarks.aot import launches
from vqkernels import ops


def _quantize(x: torch.Tensor) -> None:
    codebook = torch.zeros(100, x.shape[1], requires_grad=True)
    out = vq.vector_quantize(x.requires_grad_(), codebook, backend="triton")
    (out.quantized.sum() + out.loss).backward()


def _assign_softly(x: torch.Tensor) -> None:
    codebook = torch.zeros(100, x.shape[1], requires_grad=True)
    options = (None, 1.0, 1, True, "triton")
    log_sums, mean, usage = ops.SoftAssign.apply(x.requires_grad_(), codebook, *options)
    (log_sums.sum() + mean.sum() + usage.sum()).backward()


def _compiled_for(
    call: Callable[[torch.Tensor], None], shape: tuple[int, ...]
) -> set[tuple[str, tuple[Any, ...]]]:
    recorded = launches.record(90, lambda: call(torch.zeros(shape)))
    return {_specialised(launch) for launch in recorded}


def _specialised(launch: launches.Launch) -> tuple[str, tuple[Any, ...]]:
    """All that a compiled kernel depends on, but for the types and alignment of pointers."""
    values = launch.values
    known = [
        (p.name, values[p.name])
        for p in launch.function.params
        if not p.do_not_specialize and not isinstance(values[p.name], launches.Pointer)
    ]
    return launch.name, tuple(known)


@pytest.mark.parametrize("call", [_quantize, _assign_softly])
@pytest.mark.parametrize(
    "shapes", [((66000, 24), (65999, 24)), ((1030, 24, 8, 8), (1029, 24, 8, 8))], ids=str
)
def test_the_number_of_rows_is_nothing_that_a_kernel_is_compiled_for(
    shapes: tuple[tuple[int, ...], ...], call: Callable[[torch.Tensor], None]
) -> None:
    first, second = (_compiled_for(call, shape) for shape in shapes)
    assert first == second
    assert len(first) > 5
