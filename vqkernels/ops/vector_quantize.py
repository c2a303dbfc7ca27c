"""The differentiable quantizer step: ``vq_forward`` or ``vq_assigned``, and ``vq_backward``."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from vqkernels.ops._recompute import keep_moves, unless_moved
from vqkernels.ops.vq_assigned import vq_assigned
from vqkernels.ops.vq_backward import vq_backward
from vqkernels.ops.vq_forward import vq_forward


class VectorQuantize(Function):
    """(x, codebook) -> (quantized, loss, indices, mse, counts, sums).

    quantized and loss are differentiable in x; loss also in the codebook. Saved are x, the chosen
    rows and the indices, never the codebook: a buffer that moves between two forwards and one
    backward would otherwise invalidate the graph. ``chosen`` holds codes that take the place of
    the nearest ones, or is None. ``moves`` counts the moves of a codebook that moves by itself,
    else it is None: a recompute with a moved codebook is refused.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        codebook: Tensor,
        prepared: list[Tensor] | None,
        mask: Tensor | None,
        chosen: Tensor | None,
        metric: str,
        estimator: str,
        commitment_weight: float,
        codebook_weight: float,
        channel_dim: int,
        statistics: bool,
        backend: str | None,
        moves: Tensor | None,
    ) -> tuple[Tensor, ...]:
        options = (mask, metric, channel_dim, statistics, backend)
        if chosen is None:
            step = vq_forward(x, codebook, prepared, *options)
        else:
            step = vq_assigned(x, codebook, chosen, *options)
        rows, indices, mse, counts, sums = step
        quantized = rows.to(x.dtype)
        loss = mse * (commitment_weight + codebook_weight)
        ctx.save_for_backward(x, rows, indices, keep_moves(ctx, moves))
        ctx.options = (
            # The compiler makes a constant of it: where it is a number of rows, of every size.
            codebook.shape[0] if ctx.needs_input_grad[1] else 1,
            metric,
            estimator,
            commitment_weight,
            codebook_weight,
            channel_dim,
        )
        ctx.backend = backend
        ctx.codebook_dtype = codebook.dtype
        ctx.mark_non_differentiable(indices, mse, counts, sums)
        ctx.set_materialize_grads(False)
        return quantized, loss, indices, mse, counts, sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        grad_quantized, grad_loss = grads[:2]
        need_x, need_codebook = ctx.needs_input_grad[:2]
        if grad_quantized is None and grad_loss is None:
            return (None,) * 13
        *saved, moves = ctx.saved_tensors
        grad_x, grad_codebook = vq_backward(
            grad_quantized,
            grad_loss,
            *saved,
            *ctx.options,
            need_x,
            need_codebook,
            ctx.backend,
        )
        return (
            unless_moved(ctx, grad_x, moves) if need_x else None,
            grad_codebook.to(ctx.codebook_dtype) if need_codebook else None,
            *(None,) * 11,
        )
