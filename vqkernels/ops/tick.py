"""tick_: counts the training forwards of a module that needs a number for each."""

from __future__ import annotations

from torch import Tensor

from vqkernels.ops._library import define, in_recompute, no_result


def _impl(counter: Tensor) -> None:
    """Adds 1; nothing in a recompute. Whatever the batch holds, so that ranks count alike."""
    if not in_recompute():
        counter.add_(1)


tick_ = define("tick_(Tensor(a!) counter) -> ()", _impl, no_result)
