"""Block shapes of the screen, by the width of the vectors: a table, no autotuning.

A group is ``group`` codes that are neighbours in the codebook. A tile of ``block_codes`` packed
codes holds four slots times ``folds`` groups, and ``tiles`` tiles follow each other in one step of
the loop: the position of a code is chosen so that one thread of the matrix unit's output owns all
codes of a group, and the maximum over a group needs no exchange between threads.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from vqkernels.backends.triton.hardware import Hardware

SLOTS = 4  # threads that share a row of the matrix unit's output
_WIDEST_PACKED = 18  # 3 D + 8 lanes fit into 64 columns
_LANES = 16
_HALF = 2  # bytes
_TENSOR_MEMORY = 50 << 10  # bytes that Triton takes to move scores out of it
_SPLITS = (1, 4, 32)  # few choices: the kernels that read the lists are compiled for each


@dataclasses.dataclass(frozen=True)
class Plan:
    """How one screen is laid out.

    Attributes:
        choices: numbers of fp16 products per pair that a call may use, the larger last; (0,) when
            the parts of x stand side by side with the lanes and one block holds everything.
        centred: whether the codebook's mean is taken from x and the codes.
        width: columns of one part of x, a power of two.
        lanes: columns of the block of lanes, a power of two.
        block_rows, block_codes, tiles, folds: shape of one step of the loop.
        warps: of Triton.
        registers: the most that a thread may use, so that two programs share a processor.
    """

    choices: tuple[int, ...]
    centred: bool
    width: int
    lanes: int
    block_rows: int
    block_codes: int
    tiles: int
    folds: int
    warps: int
    registers: int | None

    @property
    def packed(self) -> bool:
        return self.choices == (0,)

    @property
    def products(self) -> int:
        return self.choices[-1]

    def resident(self, products: int, device: Hardware) -> bool:
        """Whether a block of rows, all parts of it, and two tiles of codes fit into a program."""
        parts = min(products, 2)
        copies = 2 if device.tensor_memory and products == 3 else 1
        vectors = copies * self.block_rows + 2 * self.block_codes
        return vectors * (parts * self.width + self.lanes) * _HALF <= device.shared

    def chunks(self, products: int, device: Hardware) -> tuple[int, int]:
        """(columns of a part that stream by at a time, tiles in flight) where it does not."""
        vectors = (self.block_rows + self.block_codes) * _HALF
        kept = vectors * self.lanes + (_TENSOR_MEMORY if device.tensor_memory else 0)
        for chunk, stages in ((64, 3), (64, 2), (32, 3)):
            if kept + stages * vectors * min(products, 2) * chunk <= device.shared:
                return chunk, stages
        return 32, 2

    @property
    def group(self) -> int:
        return self.tiles * self.block_codes // (SLOTS * self.folds)

    @property
    def step_codes(self) -> int:
        """Codes per step of the loop: the codebook is padded to a multiple of it."""
        return self.tiles * self.block_codes

    def steps(self, num_codes: int) -> int:
        return -(-num_codes // self.step_codes)

    def splits(self, num_rows: int, num_codes: int, device: Hardware) -> int:
        """Parts of the codebook that are searched side by side: more when rows are few."""
        programs = -(-num_rows // self.block_rows)
        fitting = [splits for splits in _SPLITS if splits <= self.steps(num_codes)]
        busy = [splits for splits in fitting if programs * splits * 2 > device.processors]
        return min(busy, default=fitting[-1])


def plan(dtype: torch.dtype, dim: int, num_codes: int, metric: str, device: Hardware) -> Plan:
    """The layout for vectors of ``dim`` channels."""
    l2 = metric == "l2"
    if dim <= _WIDEST_PACKED:
        lanes, tiles = 32 if dim <= 8 else 64, 2 if num_codes > 4096 else 1
        return Plan((0,), l2, lanes, lanes, 256, 64, tiles, 1, 8, 128)
    full = dtype is torch.float32
    choices = (1, 3) if full else (1, 2)
    width = max(32, 1 << (dim - 1).bit_length())
    codes = 128 if width <= 64 or device.reads_shared else 64
    folds = 1 if width == 32 else codes // 32
    return Plan(choices, l2 and full, width, _LANES, 128, codes, 1, folds, 8, None)


def positions(plan: Plan, num_codes: int) -> Tensor:
    """Packed position of every code: the specification of ``pack._position``."""
    code = torch.arange(num_codes)
    per_tile = plan.group // plan.tiles
    group, element = code // plan.group, code % plan.group
    slot, order = group % SLOTS, group // SLOTS
    step, fold = order // plan.folds, order % plan.folds
    tile, inside = element // per_tile, element % per_tile
    column = (fold * (per_tile // 2) + inside // 2) * 8 + slot * 2 + inside % 2
    return (step * plan.tiles + tile) * plan.block_codes + column
