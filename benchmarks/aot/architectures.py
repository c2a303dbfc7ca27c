"""What a multiprocessor of an architecture has, as far as it limits the blocks on it.

Sources: the table of technical specifications per compute capability in NVIDIA's CUDA C++
Programming Guide, and its occupancy calculator for the units of allocation.
"""

from __future__ import annotations

from typing import NamedTuple


class Processor(NamedTuple):
    """``shared`` bytes for all blocks; ``multiprocessors`` of the largest GPU that is sold."""

    multiprocessors: int
    shared: int
    threads: int = 2048
    blocks: int = 32
    registers: int = 65536
    tensor_columns: int = 0  # of tensor memory


PROCESSORS = {
    80: Processor(108, 164 << 10),
    90: Processor(132, 228 << 10),
    100: Processor(148, 228 << 10, tensor_columns=512),
}
_WARP = 32
_REGISTERS_PER_WARP = 256  # unit of allocation
_WARPS_TOGETHER = 4
_SHARED_UNIT = 128
_SHARED_PER_BLOCK = 1 << 10  # that the system takes


def blocks_per_processor(
    arch: int, warps: int, registers: int, shared: int, tensor_columns: int = 0
) -> int:
    """Blocks of ``warps`` warps that fit on a multiprocessor at the same time."""
    processor = PROCESSORS[arch]
    per_warp = -(-registers * _WARP // _REGISTERS_PER_WARP) * _REGISTERS_PER_WARP
    warps_that_fit = processor.registers // per_warp // _WARPS_TOGETHER * _WARPS_TOGETHER
    per_block = -(-(shared + _SHARED_PER_BLOCK) // _SHARED_UNIT) * _SHARED_UNIT
    limits = [
        processor.blocks,
        processor.threads // (warps * _WARP),
        warps_that_fit // warps,
        processor.shared // per_block,
    ]
    if tensor_columns:
        limits.append(processor.tensor_columns // tensor_columns)
    return min(limits)
