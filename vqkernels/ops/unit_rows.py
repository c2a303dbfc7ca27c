"""UnitRows: the rows that the cosine metric compares, x / max(|x|, 1e-12). Plain torch, no op."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from vqkernels._numerics import TINY, wide


class UnitRows(Function):
    """(x, valid) -> u in wide, with x's strides; a row without a direction gets no gradient.

    Rows that ``valid`` (positions) leaves out are zero, whatever they hold.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, valid: Tensor, channel_dim: int) -> Tensor:
        kept = torch.where(valid.unsqueeze(channel_dim), x, 0.0).to(wide(x.dtype))
        norms = torch.linalg.vector_norm(
            kept, dim=channel_dim, keepdim=True, dtype=torch.float64
        ).clamp(min=TINY)
        unit = (kept / norms).to(kept.dtype)
        ctx.save_for_backward(unit, norms)
        ctx.channel_dim, ctx.dtype = channel_dim, x.dtype
        return unit

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        unit, norms = ctx.saved_tensors
        radial = (unit * grad).sum(dim=ctx.channel_dim, keepdim=True, dtype=torch.float64)
        tangent = (grad - unit * radial) / norms
        return torch.where(norms > TINY, tangent, 0.0).to(ctx.dtype), None, None
