"""Whether the matrix unit of a device rounds as ``bound`` assumes; part of the self-check."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vqkernels.backends.triton.bound import accumulation_error
from vqkernels.backends.triton.hardware import hardware

_SIDE = 64
_INNER = (32, 64, 256)


@triton.jit
def _multiply(
    a_ptr,  # (SIDE, INNER) fp16
    b_ptr,  # (SIDE, INNER) fp16
    out_ptr,  # (SIDE, SIDE) float32, out: a b^T
    SIDE: tl.constexpr,
    INNER: tl.constexpr,
):
    row, inner = tl.arange(0, SIDE), tl.arange(0, INNER)
    a = tl.load(a_ptr + row[:, None] * INNER + inner[None, :])
    b = tl.load(b_ptr + row[None, :] * INNER + inner[:, None])
    tl.store(out_ptr + row[:, None] * SIDE + row[None, :], tl.dot(a, b))


def share_of_bound(device: torch.device) -> float:
    """The largest error of products on ``device`` over what ``bound`` allows: 1 or less.

    Sums where a unit that aligns or cuts differently would show: random terms, terms of one sign,
    one that is far above the others, and terms that cancel.
    """
    unit = hardware(device).unit
    worst = 0.0
    for inner in _INNER:
        allowed = accumulation_error(unit, 0, inner)
        for a, b in _operands(inner):
            exact, magnitude = a.double() @ b.double().T, a.double().abs() @ b.double().abs().T
            error = (_product(a.to(device), b.to(device)).cpu().double() - exact).abs()
            worst = max(worst, float((error / (allowed * magnitude)).max()))
    return worst


def _product(a: Tensor, b: Tensor) -> Tensor:
    out = a.new_empty(_SIDE, _SIDE, dtype=torch.float32)
    with torch.cuda.device_of(a):
        _multiply[(1,)](a, b, out, SIDE=_SIDE, INNER=a.shape[1])
    return out


def _operands(inner: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(inner)
    a = torch.randn(_SIDE, inner, generator=generator).mul_(32).half()
    b = torch.randn(_SIDE, inner, generator=generator).mul_(32).half()
    huge = a.clone()
    huge[:, inner // 2] *= 100
    mirrored, near = a.clone(), b.clone()
    mirrored[:, 1::2] = -a[:, ::2]
    near[:, 1::2] = b[:, ::2] * (1 + 2.0**-9)
    return [(a, b), (a.abs(), b.abs()), (huge, b), (mirrored, near)]
