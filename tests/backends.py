"""What is built here: backends and instruction-set levels."""

from __future__ import annotations

import importlib
import os
from types import ModuleType, SimpleNamespace
from typing import Any


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


def interpreted() -> bool:
    """Whether this process interprets Triton kernels on CPU tensors."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def state_launchers() -> Any:
    """The functions that launch the state ops: compiled, or of interpreted Triton kernels."""
    if not interpreted():
        return importlib.import_module("vqkernels.backends.native")
    nouns = ("advance", "observe", "normalize_codes", "sample_rows")
    files = {noun: importlib.import_module(f"vqkernels.backends.triton.{noun}") for noun in nouns}
    return SimpleNamespace(**{noun: getattr(file, noun) for noun, file in files.items()})
