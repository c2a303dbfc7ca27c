"""What the search has to know of a GPU."""

from __future__ import annotations

import os
from typing import NamedTuple

import torch

from vqkernels.backends.triton.bound import UNITS, UNKNOWN_UNIT


class Hardware(NamedTuple):
    """Of one device.

    Attributes:
        processors: its multiprocessors.
        unit: how its matrix unit rounds, for ``bound.accumulation_error``.
        shared: bytes of shared memory that one program may have.
        tensor_memory: whether operands are copied to a memory of the matrix unit's own.
    """

    processors: int
    unit: tuple[int, int]
    shared: int
    tensor_memory: bool


def hardware(device: torch.device) -> Hardware:
    """Of ``device``; of an imaginary one under the interpreter."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        return Hardware(4, UNKNOWN_UNIT, 227 << 10, False)
    found = torch.cuda.get_device_properties(device)
    unit = UNITS.get(10 * found.major + found.minor, UNKNOWN_UNIT)
    shared = getattr(found, "shared_memory_per_block_optin", 99 << 10)
    return Hardware(found.multi_processor_count, unit, shared, found.major == 10)
