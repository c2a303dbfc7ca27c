"""The compiled extension: whether it is there, and what it can do."""

from __future__ import annotations

import functools
import importlib
import os
import warnings
from typing import Any

import torch

core: Any = None
_why: str | None = None
try:
    core = importlib.import_module("vqkernels._native")
except ImportError as _cause:
    _why = (
        f"backend='native' must have the compiled extension, got: {_cause}. Install the package "
        "with a C++ compiler present (in a source tree: pip install -e .) and without "
        "VQK_NATIVE=off"
    )
    if os.environ.get("VQK_NATIVE") != "off":
        warnings.warn(
            "vqkernels: the compiled extension is missing, the slow reference backend runs "
            "instead. Reinstall with a C++ compiler, or set VQK_NATIVE=off to accept this.",
            RuntimeWarning,
            stacklevel=2,
        )


def missing() -> str | None:
    """Why the extension cannot be used, with the fix; None when it can."""
    return _why


def build_info() -> dict[str, Any] | None:
    """Compiler, the levels that were built and the active one; None without the extension."""
    if core is None:
        return None
    return {**core.build_info(), "active level": core.isa()}


def cuda_missing(device: torch.device) -> str | None:
    """Why the CUDA kernels cannot run on a device, with the fix; None when they can."""
    if core is None:
        return _why
    if not hasattr(core, "cuda"):
        return (
            "backend='native' must be built with CUDA for a tensor on a CUDA device, got a build "
            "without it. Install the CUDA toolkit and install the package with VQK_CUDA=on"
        )
    found = _unusable(torch.cuda.current_device() if device.index is None else device.index)
    if not found:
        return None
    return (
        "backend='native' must have a device and a driver that its CUDA kernels fit, "
        f"got {found}. Update the driver, or build the package with a CUDA toolkit that fits it"
    )


@functools.cache
def _unusable(device: int) -> str:
    if not torch.cuda.is_available():  # which says nothing about why
        return str(core.cuda.unusable(device))
    with torch.cuda.device(device):
        return str(core.cuda.unusable(device))
