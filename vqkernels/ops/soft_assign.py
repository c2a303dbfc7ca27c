"""soft_assign: probabilities over all codes, of which only sums over codes or rows are kept.

No (N, K) array exists, forward or backward: both compute the logits again, tile by tile.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from vqkernels._layout import row_shape
from vqkernels._numerics import wide
from vqkernels.ops._library import define
from vqkernels.ops.dispatch import launcher
from vqkernels.ops.soft_assign_backward import soft_assign_backward

_Result = tuple[Tensor, Tensor, Tensor]


def _impl(
    x: Tensor,
    codebook: Tensor,
    mask: Tensor | None,
    temperature: float,
    channel_dim: int,
    usage: bool,
    backend: str | None,
) -> _Result:
    return launcher("soft_assign", x, codebook, backend).soft_assign(
        x, codebook, mask, temperature, channel_dim, usage
    )


def _fake(
    x: Tensor,
    codebook: Tensor,
    mask: Tensor | None,
    temperature: float,
    channel_dim: int,
    usage: bool,
    backend: str | None,
) -> _Result:
    shape = row_shape(x, channel_dim)
    return (
        x.new_empty(shape, dtype=torch.float64),
        x.new_empty(shape, dtype=torch.float64),
        x.new_empty(codebook.shape[0] if usage else 0, dtype=wide(x.dtype, codebook.dtype)),
    )


# logsumexp and mean_logit are float64: what callers want of them is their difference (an entropy),
# or p = exp(logit - logsumexp), and at a low temperature both are large.
soft_assign = define(
    "soft_assign(Tensor x, Tensor codebook, Tensor? mask, float temperature, int channel_dim, "
    "bool usage, str? backend) -> (Tensor logsumexp, Tensor mean_logit, Tensor usage)",
    _impl,
    _fake,
)


def _snapshot(values: Tensor) -> Tensor:
    return values.clone(memory_format=torch.contiguous_format)


def _snapshot_fake(values: Tensor) -> Tensor:
    return values.new_empty(values.shape)


# An op of its own: instead of keeping a plain clone, the compiler would read the codebook again in
# the backward, when it has moved.
snapshot = define("snapshot(Tensor values) -> Tensor", _snapshot, _snapshot_fake)


class SoftAssign(Function):
    """(x, codebook) -> (logsumexp, mean_logit, usage), differentiable in both.

    Saved are x, the two results per row, and the codebook: a copy where it is a buffer, which may
    move between two forwards and one backward.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        codebook: Tensor,
        mask: Tensor | None,
        temperature: float,
        channel_dim: int,
        usage: bool,
        backend: str | None,
    ) -> _Result:
        logsumexp, mean_logit, mass = soft_assign(
            x, codebook, mask, temperature, channel_dim, usage, backend
        )
        need_x, need_codebook = ctx.needs_input_grad[:2]
        codes = snapshot(codebook) if need_x and not need_codebook else codebook
        ctx.save_for_backward(x, codes, mask, logsumexp, mean_logit)
        ctx.options = (temperature, channel_dim)
        ctx.backend = backend
        if not usage:
            ctx.mark_non_differentiable(mass)
        ctx.set_materialize_grads(False)
        return logsumexp, mean_logit, mass

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        if all(grad is None for grad in grads):
            return (None,) * 7
        saved = ctx.saved_tensors  # once: a checkpoint hands them out no second time
        codebook = saved[1]
        need_x, need_codebook = ctx.needs_input_grad[:2]
        grad_x, grad_codebook = soft_assign_backward(
            *grads, *saved, *ctx.options, need_x, need_codebook, ctx.backend
        )
        return (
            grad_x if need_x else None,
            grad_codebook.to(codebook.dtype) if need_codebook else None,
            *(None,) * 5,
        )
