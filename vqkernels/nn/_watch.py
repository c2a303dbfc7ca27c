"""watch: a warning when a codebook falls out of use."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from vqkernels import _checks
from vqkernels.nn._learned_codebook import LearnedCodebook
from vqkernels.outputs import CodebookHealth


class CollapseWarning(UserWarning):
    """Few of a codebook's codes are in use."""


class Watch:
    """What ``vqkernels.watch`` returns.

    ``check()`` looks now and returns the health of every codebook by name; ``remove()`` ends it.
    """

    def __init__(
        self, model: nn.Module, warn_below: float, window: int | None, every: int
    ) -> None:
        self._model, self._warn_below = model, warn_below
        self._window, self._every = window, every
        self._forwards = 0
        self._low: set[str] = set()
        self._handle = model.register_forward_hook(self._after_forward)

    def check(self) -> dict[str, CodebookHealth]:
        """Health by name. Warns of codebooks that were not below the limit when last looked at."""
        found = {}
        for name, book in _learning(self._model):
            health = found[name] = book.health(self._window)
            if health.active >= self._warn_below * health.ceiling:
                self._low.discard(name)
            elif name not in self._low:
                self._low.add(name)
                if book._group is None or book._group.rank == 0:
                    _warn(name, health)
        return found

    def remove(self) -> None:
        """Takes the hook off the model."""
        self._handle.remove()

    def _after_forward(self, model: nn.Module, *_: Any) -> None:
        if torch.compiler.is_compiling() or not model.training:
            return
        self._forwards += 1
        if self._forwards % self._every == 0:
            self.check()


def watch(
    model: nn.Module, warn_below: float = 0.1, *, window: int | None = None, every: int = 100
) -> Watch:
    """Warns, by a ``CollapseWarning``, when few codes of a codebook in ``model`` are in use.

    One forward hook on ``model`` looks at all its codebooks that learn. Used are the codes that
    were chosen within the last ``window`` rows; the limit is a share of those that uniform use of
    as many rows would reach. A codebook is reported once, and again after it has recovered. Of the
    ranks that learn a codebook together, whose counts are one, the first warns. Everything is a
    by-product of the counts that the codebook keeps: nothing is computed between two looks, and a
    look reads the device once per codebook.

    A quantizer inside of another does not run its own hooks: watch the outermost, or the model.
    Compiled code does not run the hook: watch the compiled model (``vq.watch(torch.compile(m))``)
    instead of the one inside, or call ``check()``.

    Args:
        model: holds quantizers, or is one. Those with ``update=None`` keep no counts and are left
            out.
        warn_below: share of the ceiling, in [0, 1].
        window: rows, at least 1; None takes 100 per code.
        every: training forwards of ``model`` between two looks.

    Returns:
        Watch, with ``check()`` and ``remove()``.

    Raises:
        TypeError, ValueError: an argument breaks its contract, or no codebook in it learns.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    _checks.in_range("warn_below", warn_below, 0.0, 1.0)
    if window is not None:
        _checks.integer_at_least("window", window, 1)
    _checks.integer_at_least("every", every, 1)
    if not _learning(model):
        raise ValueError("model must hold a quantizer that learns, got none")
    return Watch(model, float(warn_below), window, int(every))


def _learning(model: nn.Module) -> list[tuple[str, LearnedCodebook]]:
    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, LearnedCodebook) and module.update is not None
    ]


def _warn(name: str, health: CodebookHealth) -> None:
    warnings.warn(
        f"codebook {name or '(the model)'}: {health.active} codes in use in the last "
        f"{health.window} rows, where uniform use would reach {health.ceiling:.0f}; perplexity "
        f"{health.perplexity:.1f}, {health.dead} dead, {health.revived} revived so far",
        CollapseWarning,
        stacklevel=2,
    )
