"""Peak memory of one call over the moment before it."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def physical() -> int:
    """Bytes of memory that this machine has."""
    return _field(Path("/proc/meminfo"), "MemTotal")


def peak_extra(call: Callable[[], Any], device: torch.device) -> int | None:
    """Bytes that ``call`` needs at its peak beyond what is held before it; None: not known here.

    On the CPU the high-water mark of the process, which everything else in it moves too: call it
    in a process of its own. Resolved to about a megabyte.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    # What is freed but kept by the allocator would be used again without being counted.
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        _RESET.write_text("5")  # the high-water mark starts again from here
    except OSError:
        return None
    before = _field(_STATUS, "VmRSS")
    call()
    return max(0, _field(_STATUS, "VmHWM") - before)


def _field(path: Path, name: str) -> int:
    """A field of a file of /proc, in bytes."""
    for line in path.read_text().splitlines():
        if line.startswith(name + ":"):
            return 1024 * int(line.split()[1])
    raise ValueError(f"{path} must have the field {name}, got none")
