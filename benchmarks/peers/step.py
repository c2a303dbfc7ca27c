"""A training step of a quantizer: what everyone is timed on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.peers.provider import Call


def step_of(forward: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]], x: Tensor) -> Call:
    """Forward and backward; ``forward`` takes (1, N, D) to (quantized, indices, loss).

    The gradient of ``quantized`` is given, as the decoder above a quantizer would, so that no work
    of another layer is timed.
    """
    rows = x.detach()[None].requires_grad_()
    upstream = torch.ones_like(rows) / rows.numel()

    def step() -> Tensor:
        rows.grad = None
        quantized, indices, loss = forward(rows)
        torch.autograd.backward([quantized, loss.sum()], [upstream, None])
        return indices[0]

    return step
