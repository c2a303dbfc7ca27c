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
        generation: major compute capability: 8, 9, 10, 12.
    """

    processors: int
    unit: tuple[int, int]
    shared: int
    generation: int

    @property
    def tensor_memory(self) -> bool:
        """Whether operands and scores are copied to a memory of the matrix unit's own."""
        return self.generation == 10

    @property
    def reads_shared(self) -> bool:
        """Whether the matrix unit takes operands from shared memory and needs no other copy."""
        return self.generation == 9


def hardware(device: torch.device) -> Hardware:
    """Of ``device``; of an imaginary one under the interpreter."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        return Hardware(4, UNKNOWN_UNIT, 227 << 10, 9)
    found = torch.cuda.get_device_properties(device)
    unit = UNITS.get(10 * found.major + found.minor, UNKNOWN_UNIT)
    shared = getattr(found, "shared_memory_per_block_optin", 99 << 10)
    return Hardware(found.multi_processor_count, unit, shared, found.major)
