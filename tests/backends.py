"""What is built here: backends and instruction-set levels."""

from __future__ import annotations

import importlib
from types import ModuleType


def native_core() -> ModuleType | None:
    """The compiled extension, or None."""
    try:
        return importlib.import_module("vqkernels._native")
    except ImportError:
        return None


def available() -> tuple[str, ...]:
    return ("reference",) if native_core() is None else ("reference", "native")


def isa_levels() -> tuple[str, ...]:
    """Instruction-set levels that this CPU can run; empty without the extension."""
    core = native_core()
    return () if core is None else tuple(core.isa_levels())
