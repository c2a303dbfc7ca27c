"""IndexGradient: chosen codes as values, the softmax over all codes as their gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from vqkernels._layout import as_rows, row_shape
from vqkernels.ops._recompute import keep_moves, unless_moved
from vqkernels.ops.lookup import lookup_backward
from vqkernels.ops.soft_lookup import kept
from vqkernels.ops.soft_lookup_backward import soft_lookup_backward


class IndexGradient(Function):
    """(x, weight, bias, values, quantized) -> quantized, differentiable in the first four.

    ``quantized`` are ``values[indices]`` at the positions of x, with the channels along
    ``channel_dim``; values None are the rows of weight. The gradient is that of
    ``(one_hot(indices) - sg(p) + p) values`` with the p of ``soft_lookup``: in x, weight and bias
    it comes through p, in values from the chosen rows. So nothing is computed forward. There is
    none at index -1, nor for a row that is not finite. ``clock``, ``seed`` and ``draws`` are as in
    ``SoftLookup``.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        values: Tensor | None,
        quantized: Tensor,
        indices: Tensor,
        temperature: Tensor | None,
        clock: Tensor | None,
        seed: int,
        channel_dim: int,
        draws: Tensor | None,
    ) -> Tensor:
        noise = (kept(temperature), kept(clock))
        ctx.save_for_backward(x, weight, bias, values, indices, *noise, keep_moves(ctx, draws))
        ctx.seed, ctx.channel_dim = seed, channel_dim
        return quantized.view_as(quantized)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, values, indices, *noise, moves = ctx.saved_tensors
        needs, channel = ctx.needs_input_grad, ctx.channel_dim
        table = weight if values is None else values
        need_table = needs[1] if values is None else needs[3]
        chosen = torch.where(x.isfinite().all(dim=channel), indices, -1)
        grads: list[Tensor | None] = [None] * 11
        if any(needs[:3]):
            rows, upstream, valid = as_rows(x, channel), as_rows(grad, channel), chosen != -1
            found = soft_lookup_backward(
                *(upstream, None, None, rows, weight, bias, table, valid.reshape(-1), *noise),
                *(ctx.seed, needs[0], needs[1] or needs[2], False),
            )
            if needs[0]:
                grad_x = (
                    found[0].reshape(*row_shape(x, channel), x.shape[channel]).movedim(-1, channel)
                )
                grads[0] = unless_moved(ctx, grad_x.to(x.dtype), moves)
            grads[1] = found[1].to(weight.dtype) if needs[1] else None
            grads[2] = found[2].to(bias.dtype) if needs[2] else None
        if need_table:
            of_table = lookup_backward(grad, chosen, len(table), channel).to(table.dtype)
            if values is None:
                grads[1] = grads[1] + of_table
            else:
                grads[3] = of_table
        return tuple(grads)
