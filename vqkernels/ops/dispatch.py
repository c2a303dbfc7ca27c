"""Which backend runs an op, and why not another one."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vqkernels import _checks
from vqkernels.backends import native, reference

BACKENDS = ("native", "triton", "reference")
_ORDER = {"cpu": ("native", "reference"), "cuda": ("triton", "native", "reference")}
# The ops that a backend has on a CUDA device; asked for by name, it leaves the rest to reference.
_ON_CUDA = {
    "native": frozenset({"nearest_code", "code_sums"}),
    "triton": frozenset(
        {
            "nearest_code",
            "vq_forward",
            "vq_assigned",
            "vq_backward",
            "fsq",
            "fsq_backward",
            "residual",
            "residual_backward",
            "lookup",
            "code_sums",
            "normalize_codes",
            "sample_rows",
            "sample_residuals",
            "soft_assign",
            "soft_assign_backward",
            "sample_codes",
            "observe_",
            "advance_",
            "ema_update_",
        }
    ),
}
_OLDEST_TRITON = (3, 6)  # older ones fail to compile the search
_LOW = (torch.float32, torch.float16, torch.bfloat16)


def choose(op: str, x: Tensor, codebook: Tensor | None, requested: str | None) -> str:
    """The backend that runs ``op`` on ``x``.

    ``requested=None`` takes the first available of the device's order. A backend asked for by
    name is used or refused, never replaced; ops that it does not have follow on ``reference``.

    Raises:
        ValueError: no backend has that name, or it does not serve the device.
        TypeError: it does not serve the dtype.
        RuntimeError: it is not built or not installed.
    """
    if requested is not None:
        _checks.one_of("backend", requested, BACKENDS)
        has_it = requested == "reference" or _has(requested, op, x)
        refusal = _refusal(op if has_it else "nearest_code", requested, x, codebook)
        if refusal is not None:
            kind, reason = refusal
            raise kind(reason)
        return requested if has_it else "reference"
    for name in _ORDER.get(x.device.type, ()):
        if _refusal(op, name, x, codebook) is None:
            return name
    return "reference"


def why_not(op: str, name: str, x: Tensor, codebook: Tensor | None) -> str | None:
    """Why ``name`` cannot run ``op`` on ``x``; None when it can."""
    refusal = _refusal(op, name, x, codebook)
    return None if refusal is None else refusal[1]


def launcher(op: str, x: Tensor, codebook: Tensor | None, requested: str | None) -> Any:
    """The module of the chosen backend, with the function that launches ``op`` under its name."""
    return _module(choose(op, x, codebook, requested), op)


def implementation(op: str, in_torch: Callable[..., Any], *tensors: Tensor) -> Callable[..., Any]:
    """What runs a state op, which no caller chooses a backend for: a launcher or ``in_torch``.

    ``in_torch`` is the specification; launchers return its bits.
    """
    chosen = choose(op, tensors[0], tensors[-1], None)
    if chosen == "reference":
        return in_torch
    return getattr(_module(chosen, op), op.rstrip("_"), in_torch)


def triton_launcher(noun: str) -> Any:
    """The Triton file of an op, imported on first use: `import vqkernels` needs torch alone."""
    return importlib.import_module(f"vqkernels.backends.triton.{noun}")


def _module(backend: str, op: str) -> Any:
    if backend == "triton":
        return triton_launcher(op.rstrip("_"))
    return native if backend == "native" else reference


def _has(name: str, op: str, x: Tensor) -> bool:
    return (name == "native" and x.device.type == "cpu") or op in _ON_CUDA[name]


_Refusal = tuple[type[Exception], str] | None


def _refusal(op: str, name: str, x: Tensor, codebook: Tensor | None) -> _Refusal:
    if name == "reference":
        return None
    for argument, value in (("x", x), ("codebook", codebook)):
        if value is not None and value.dtype not in _LOW:
            reason = (
                f"{argument} must be float32, float16 or bfloat16 for backend={name!r}, "
                f"got {value.dtype}"
            )
            return TypeError, reason
    return _AVAILABLE[name](op, x)


def _native(op: str, x: Tensor) -> _Refusal:
    if x.device.type not in ("cpu", "cuda"):
        return (
            ValueError,
            f"x must be on a CPU or CUDA device for backend='native', got {x.device}",
        )
    if not _has("native", op, x):
        return ValueError, f"backend must be one that has {op} on {x.device}, got 'native'"
    missing = native.missing() if x.device.type == "cpu" else native.cuda_missing(x.device)
    return None if missing is None else (RuntimeError, missing)


def _triton(op: str, x: Tensor) -> _Refusal:
    if op not in _ON_CUDA["triton"]:
        return ValueError, f"backend must be one that has {op}, got 'triton'"
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if x.device.type != "cuda" and not (interpreted and x.device.type == "cpu"):
        return ValueError, f"x must be on a CUDA device for backend='triton', got {x.device}"
    if interpreted and x.dtype == torch.bfloat16:
        return TypeError, "x must be float32 or float16 under TRITON_INTERPRET=1, got bfloat16"
    try:
        import triton
    except ImportError as cause:
        return RuntimeError, f"backend='triton' must have triton installed, got {cause}"
    version: str = triton.__version__  # type: ignore[attr-defined]
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST_TRITON:
        oldest = ".".join(map(str, _OLDEST_TRITON))
        return RuntimeError, f"backend='triton' must have triton {oldest} or newer, got {version}"
    return None


_AVAILABLE: dict[str, Callable[[str, Tensor], _Refusal]] = {"native": _native, "triton": _triton}
