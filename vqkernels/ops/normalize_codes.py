"""normalize_codes: the codebook of the cosine metric, the same bits on every device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from vqkernels._numerics import rounded_sqrt, upcast, wide
from vqkernels.ops._library import define
from vqkernels.ops.dispatch import implementation


def _impl(codebook: Tensor) -> tuple[Tensor, Tensor]:
    return implementation("normalize_codes", in_torch, codebook)(codebook)


def in_torch(codebook: Tensor) -> tuple[Tensor, Tensor]:
    """The specification: c / |c| with the norm in float64, i ascending; zero stays zero."""
    codes = upcast(codebook)
    total = torch.zeros_like(codes[:, :1])
    for i in range(codes.shape[1]):  # i ascending: part of the exactness contract
        total = total + codes[:, i : i + 1] * codes[:, i : i + 1]
    norms = rounded_sqrt(total)
    unit = codes / torch.where(norms == 0, 1.0, norms)
    return unit.to(wide(codebook.dtype)), norms


def _fake(codebook: Tensor) -> tuple[Tensor, Tensor]:
    k = codebook.shape[0]
    return (
        codebook.new_empty(codebook.shape, dtype=wide(codebook.dtype)),
        codebook.new_empty((k, 1), dtype=torch.float64),
    )


normalize_codes = define(
    "normalize_codes(Tensor codebook) -> (Tensor unit, Tensor norms)", _impl, _fake
)


class NormalizeCodes(Function):
    """c -> c/|c| rounded to float32; a zero code stays zero and gets no gradient."""

    @staticmethod
    def forward(ctx: Any, codebook: Tensor) -> Tensor:
        unit, norms = normalize_codes(codebook)
        # The norms, not the codebook: its buffer may have moved before the backward.
        ctx.save_for_backward(unit, norms)
        ctx.dtype = codebook.dtype
        return unit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        unit, norms = ctx.saved_tensors
        u, g = unit.double(), grad.double()
        tangent = (g - u * (u * g).sum(dim=1, keepdim=True)) / torch.where(norms == 0, 1.0, norms)
        return torch.where(norms == 0, 0.0, tangent).to(ctx.dtype)
