"""tick_: counts the training forwards of a module that needs a number for each."""

from __future__ import annotations

from torch import Tensor

from vqkernels.ops._library import define, in_recompute, no_result


def _impl(counter: Tensor, x: Tensor, mask: Tensor | None) -> None:
    """Adds 1, but nothing in a recompute or for a batch without an unmasked row."""
    if in_recompute() or x.numel() == 0:
        return
    counter.add_(1 if mask is None else mask.any().to(counter.dtype))


tick_ = define("tick_(Tensor(a!) counter, Tensor x, Tensor? mask) -> ()", _impl, no_result)
