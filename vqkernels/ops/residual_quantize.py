"""The differentiable residual quantizer: ``residual`` and ``residual_backward`` together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from vqkernels.ops._recompute import keep_moves, unless_moved
from vqkernels.ops.residual import residual
from vqkernels.ops.residual_backward import residual_backward


class ResidualQuantize(Function):
    """(x, codebooks) -> (quantized, loss, indices, mse, counts, sums).

    quantized and loss are differentiable in x; loss also in the codebooks. Saved are the mask
    and two sums, over the levels and over the rows of a code, of what the levels leave of x: no
    copy of x per level, and no codebook, which may move before the backward. The rotation also
    needs x and the unrounded sum of its codes. ``moves`` is as in ``VectorQuantize``.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        codebooks: Tensor,
        prepared: list[Tensor] | None,
        levels: int,
        mask: Tensor | None,
        kept: Tensor | None,
        estimator: str,
        commitment_weight: float,
        codebook_weight: float,
        channel_dim: int,
        statistics: bool,
        need_x: bool,
        need_codebooks: bool,
        backend: str | None,
        moves: Tensor | None,
    ) -> tuple[Tensor, ...]:
        rows, indices, mse, counts, sums, remainder, code_remainders = residual(
            x,
            codebooks,
            prepared,
            levels,
            mask,
            kept,
            channel_dim,
            statistics,
            need_x,
            need_codebooks,
            backend,
        )
        quantized = rows.to(x.dtype)
        loss = mse.sum(dtype=torch.float64).to(mse.dtype) * (commitment_weight + codebook_weight)
        turned = (x, rows) if estimator == "rotation" and need_x else (None, None)
        saved = (*turned, remainder, code_remainders, mask, keep_moves(ctx, moves))
        ctx.save_for_backward(*saved)
        ctx.options = (
            indices.numel() // levels,
            codebooks.shape[0] != levels,
            estimator,
            commitment_weight,
            codebook_weight,
            channel_dim,
            x.dtype,
        )
        ctx.backend = backend
        ctx.codebook_dtype = codebooks.dtype
        ctx.mark_non_differentiable(indices, mse, counts, sums)
        ctx.set_materialize_grads(False)
        return quantized, loss, indices, mse, counts, sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        grad_quantized, grad_loss = grads[:2]
        need_x, need_codebooks = ctx.needs_input_grad[:2]
        if grad_quantized is None and grad_loss is None:
            return (None,) * 15
        *saved, moves = ctx.saved_tensors
        grad_x, grad_codebooks = residual_backward(
            grad_quantized,
            grad_loss,
            *saved,
            *ctx.options,
            need_x,
            need_codebooks,
            ctx.backend,
        )
        return (
            unless_moved(ctx, grad_x, moves) if need_x else None,
            grad_codebooks.to(ctx.codebook_dtype) if need_codebooks else None,
            *(None,) * 13,
        )
