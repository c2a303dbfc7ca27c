"""Finds out that a checkpointed region was computed again with another codebook."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def count_both(moves: Tensor | None, draws: Tensor | None) -> Tensor | None:
    """What ``keep_moves`` keeps: a recompute must find neither moved codes nor another draw."""
    if moves is None or draws is None:
        return draws if moves is None else moves
    return moves + draws


def keep_moves(ctx: Any, moves: Tensor | None) -> Tensor | None:
    """How often the codebook has moved, or has been drawn from, at this forward: saved last.

    A copy also stays on ``ctx``: a non-reentrant checkpoint runs the backward of the first
    ``ctx`` on what the recompute has saved, so that the two are those of different forwards.
    """
    ctx.moves = moves.clone() if moves is not None and ctx.needs_input_grad[0] else None
    return ctx.moves


def unless_moved(ctx: Any, grad_x: Tensor, moves: Tensor | None) -> Tensor:
    """The gradient, if the codebook is that of the first forward; ``moves`` is what was saved.

    Raises RuntimeError where it is not. Where reading the number would stall a device, the
    gradient becomes NaN instead.
    """
    if moves is None or ctx.moves is None or moves is ctx.moves:
        return grad_x
    if moves.device.type != "cpu":
        return grad_x.masked_fill(moves != ctx.moves, float("nan"))
    if moves != ctx.moves:
        raise RuntimeError(
            "a recompute must see the codebook and the draws of its checkpointed forward, "
            f"got {int(moves - ctx.moves)} moves or draws since; several forwards per backward "
            "need EMA(every=...) of that number, with Gradient(...) revive=None, and neither "
            "Sample(...) nor LevelDropout(...) nor GumbelVQ"
        )
    return grad_x
