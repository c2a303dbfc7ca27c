"""Decisions of the native backend that a test makes for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from backends import native_core


@contextlib.contextmanager
def pruning(how: str) -> Iterator[None]:
    """Whether its searches leave codes out where they have cells: "always", "never" or "auto"."""
    core = native_core()
    assert core is not None
    core.force_pruning(how)
    try:
        yield
    finally:
        core.force_pruning("auto")


@contextlib.contextmanager
def isa(level: str) -> Iterator[None]:
    """The instruction-set level."""
    core = native_core()
    assert core is not None
    before = core.isa()
    core.force_isa(level)
    try:
        yield
    finally:
        core.force_isa(before)
