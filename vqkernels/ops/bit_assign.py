"""bit_assign: probabilities over all codes of +-1 bits, of which sums alone are kept.

Nothing that exists, forward or backward, has both the rows and the codes as factors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from vqkernels.backends import reference
from vqkernels.ops._library import define


def _impl(x: Tensor, mask: Tensor | None, scale: float, floor: float) -> tuple[Tensor, Tensor]:
    return reference.bit_assign(x, mask, scale, floor)


def _fake(x: Tensor, mask: Tensor | None, scale: float, floor: float) -> tuple[Tensor, Tensor]:
    count, groups, bits = x.shape
    return (
        x.new_empty(count, groups, dtype=torch.float64),
        x.new_empty(groups, 2**bits, dtype=torch.float64),
    )


bit_assign = define(
    "bit_assign(Tensor x, Tensor? mask, float scale, float floor) "
    "-> (Tensor entropy, Tensor mass)",
    _impl,
    _fake,
)


def _backward_impl(
    grad_entropy: Tensor | None,
    grad_mass: Tensor | None,
    x: Tensor,
    mask: Tensor | None,
    scale: float,
    floor: float,
) -> Tensor:
    return reference.bit_assign_backward(grad_entropy, grad_mass, x, mask, scale, floor)


def _backward_fake(
    grad_entropy: Tensor | None,
    grad_mass: Tensor | None,
    x: Tensor,
    mask: Tensor | None,
    scale: float,
    floor: float,
) -> Tensor:
    return x.new_empty(x.shape)


bit_assign_backward = define(
    "bit_assign_backward(Tensor? grad_entropy, Tensor? grad_mass, Tensor x, Tensor? mask, "
    "float scale, float floor) -> Tensor",
    _backward_impl,
    _backward_fake,
)


class BitAssign(Function):
    """(x, mask, scale, floor) -> (entropy, mass), differentiable in x. Saved are x and mask."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, mask: Tensor | None, scale: float, floor: float
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, mask)
        ctx.options = (scale, floor)
        ctx.set_materialize_grads(False)
        entropy, mass = bit_assign(x, mask, scale, floor)
        return entropy, mass

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_entropy: Tensor | None, grad_mass: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        if grad_entropy is None and grad_mass is None:
            return (None,) * 4
        grad = bit_assign_backward(grad_entropy, grad_mass, *ctx.saved_tensors, *ctx.options)
        return grad, None, None, None
