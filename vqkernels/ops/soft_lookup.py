"""soft_lookup: what a row expects to find in a table, by its softmax over all codes.

Whole rows of probabilities exist for a block of rows at a time, forward and backward, where they
are computed again: no (N, K) array.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from vqkernels._numerics import wide
from vqkernels.backends import reference
from vqkernels.ops._library import define
from vqkernels.ops._recompute import keep_moves, unless_moved
from vqkernels.ops.draw_code import noise_keys
from vqkernels.ops.soft_assign import snapshot
from vqkernels.ops.soft_lookup_backward import soft_lookup_backward

_Result = tuple[Tensor, Tensor, Tensor]


def _impl(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    values: Tensor | None,
    mask: Tensor | None,
    temperature: Tensor | None,
    clock: Tensor | None,
    seed: int,
    usage: bool,
) -> _Result:
    keys = None if clock is None else noise_keys(x, weight, clock, seed)
    with torch.autocast(x.device.type, enabled=False):
        return reference.soft_lookup(x, weight, bias, values, mask, temperature, keys, usage)


def _fake(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    values: Tensor | None,
    mask: Tensor | None,
    temperature: Tensor | None,
    clock: Tensor | None,
    seed: int,
    usage: bool,
) -> _Result:
    dtype = wide(x.dtype, weight.dtype)
    return (
        x.new_empty(0 if values is None else (x.shape[0], values.shape[1]), dtype=dtype),
        x.new_empty(x.shape[0], dtype=dtype),
        x.new_empty(len(weight) if usage else 0, dtype=dtype),
    )


soft_lookup = define(
    "soft_lookup(Tensor x, Tensor weight, Tensor? bias, Tensor? values, Tensor? mask, "
    "Tensor? temperature, Tensor? clock, int seed, bool usage) "
    "-> (Tensor soft, Tensor entropy, Tensor usage)",
    _impl,
    _fake,
)


class SoftLookup(Function):
    """(x, weight, bias, values) -> (soft, entropy, usage), differentiable in all four.

    ``clock`` and ``seed`` make the noise, None is none. Clock and temperature may be buffers that
    move before the backward: copies are kept. ``draws`` is the clock where a recompute that finds
    it moved is to be refused, see ``keep_moves``.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        values: Tensor | None,
        mask: Tensor | None,
        temperature: Tensor | None,
        clock: Tensor | None,
        seed: int,
        usage: bool,
        draws: Tensor | None,
    ) -> _Result:
        arguments = (x, weight, bias, values, mask)
        soft, entropy, mass = soft_lookup(*arguments, temperature, clock, seed, usage)
        noise = (kept(temperature), kept(clock))
        ctx.save_for_backward(*arguments, *noise, keep_moves(ctx, draws))
        ctx.seed, ctx.usage = seed, usage
        ctx.mark_non_differentiable(
            *([soft] if values is None else []), *([] if usage else [mass])
        )
        ctx.set_materialize_grads(False)
        return soft, entropy, mass

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        if all(grad is None for grad in grads):
            return (None,) * 10
        *saved, moves = ctx.saved_tensors
        x, weight, bias, values = saved[:4]
        needs, (soft, entropy, mass) = ctx.needs_input_grad, grads
        # A compiled step has zeros in place of None, also for what is not differentiable.
        of_soft, of_mass = None if values is None else soft, mass if ctx.usage else None
        found = soft_lookup_backward(
            *(of_soft, entropy, of_mass),
            *saved,
            ctx.seed,
            needs[0],
            needs[1] or needs[2],
            needs[3],
        )
        return (
            unless_moved(ctx, found[0].to(x.dtype), moves) if needs[0] else None,
            found[1].to(weight.dtype) if needs[1] else None,
            found[2].to(bias.dtype) if needs[2] else None,
            found[3].to(values.dtype) if needs[3] else None,
            *(None,) * 6,
        )


def kept(number: Tensor | None) -> Tensor | None:
    """A copy of a 0-d buffer for the backward, before which it may move."""
    return None if number is None else snapshot(number)
