"""A training step of a quantizer: what everyone is timed on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.peers.provider import Call

Forward = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]


def step_of(forward: Forward, x: Tensor) -> Call:
    """The step of a module that takes (1, N, D); its indices without that first axis."""
    step = step_on(forward, x[None])
    return lambda: step()[0]


def step_on(forward: Forward, x: Tensor) -> Call:
    """Forward and backward; ``forward`` takes x as it is to (quantized, indices, loss).

    The gradient of ``quantized`` is given, as the decoder above a quantizer would, so that no work
    of another layer is timed.
    """
    given = x.detach().requires_grad_()
    upstream = torch.ones_like(given) / given.numel()

    def step() -> Tensor:
        given.grad = None
        quantized, indices, loss = forward(given)
        torch.autograd.backward([quantized, loss.sum()], [upstream, None])
        return indices

    return step
