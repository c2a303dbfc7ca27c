"""Finds out that a checkpointed region was computed again with another codebook."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def keep_clock(ctx: Any, clock: Tensor | None) -> Tensor | None:
    """The clock of the codebook at this forward, to be saved as the last tensor for the backward.

    A copy also stays on ``ctx``: a non-reentrant checkpoint runs the backward of the first
    ``ctx`` on what the recompute has saved, so that the two are those of different forwards.
    """
    ctx.clock = clock.clone() if clock is not None and ctx.needs_input_grad[0] else None
    return ctx.clock


def unless_moved(ctx: Any, grad_x: Tensor, clock: Tensor | None) -> Tensor:
    """The gradient, if the codebook is that of the first forward; ``clock`` is the saved one.

    Raises RuntimeError where it is not. Where reading the clock would stall a device, the gradient
    becomes NaN instead.
    """
    if clock is None or ctx.clock is None or clock is ctx.clock:
        return grad_x
    if clock.device.type != "cpu":
        return grad_x.masked_fill(clock != ctx.clock, float("nan"))
    if clock != ctx.clock:
        raise RuntimeError(
            "EMA(every=...) must be at least the number of checkpointed forwards per backward, "
            f"got fewer: codebook update {int(clock)} came between a forward, which saw update "
            f"{int(ctx.clock)}, and its recompute"
        )
    return grad_x
