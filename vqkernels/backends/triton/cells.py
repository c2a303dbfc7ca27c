"""The cells of a codebook as the pruned search reads them: views of one block of bytes."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from vqkernels.backends.triton import bound

MAGIC = 0x5651_3163_656C_6C73  # the first number of a block
_ALIGNED = 16  # bytes, which Triton compiles for


@dataclasses.dataclass(frozen=True)
class Cells:
    """A partition of the finite ones of K codes into G cells. The terms are ``cell_bound``'s.

    Attributes:
        header: (4,) int64: ``MAGIC``, K, D, G.
        exponent: (1,) float32, 7 less the exponent of the largest |component| of the codes.
        starts: (G + 1,) int32: the codes of cell g are the members starts[g] to starts[g + 1].
        ids: (K,) int32, the number that each member has in the codebook.
        members: (D, K) float32: the codes by cell, those that are not finite last.
        centres: (D, G) float32.
        margins: (G, G) float32, h[j, g] rounded down.
        inverses: (G, G) float32.
    """

    header: Tensor
    exponent: Tensor
    starts: Tensor
    ids: Tensor
    members: Tensor
    centres: Tensor
    margins: Tensor
    inverses: Tensor

    @property
    def count(self) -> int:
        return len(self.margins)

    @property
    def dim(self) -> int:
        return len(self.members)


def _parts(k: int, dim: int, cells: int) -> list[tuple[torch.dtype, tuple[int, ...]]]:
    """Type and shape of every attribute, in their order."""
    return [
        (torch.int64, (4,)),
        (torch.float32, (1,)),
        (torch.int32, (cells + 1,)),
        (torch.int32, (k,)),
        (torch.float32, (dim, k)),
        (torch.float32, (dim, cells)),
        (torch.float32, (cells, cells)),
        (torch.float32, (cells, cells)),
    ]


def _padded_bytes(dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    return -(-math.prod(shape) * dtype.itemsize // _ALIGNED) * _ALIGNED


def block_shape(k: int, dim: int, cells: int) -> tuple[int, int]:
    """Of the block: its first size says how many cells there are."""
    length = sum(_padded_bytes(*part) for part in _parts(k, dim, cells))
    return cells, -(-length // cells)


def views(block: Tensor, k: int, dim: int) -> Cells:
    """The attributes as they lie in ``block``, (``block_shape``) uint8."""
    found, start, flat = [], 0, block.view(-1)
    for dtype, shape in _parts(k, dim, len(block)):
        length = math.prod(shape) * dtype.itemsize
        found.append(flat[start : start + length].view(dtype).view(shape))
        start += _padded_bytes(dtype, shape)
    return Cells(*found)


def cells_of(prepared: list[Tensor] | None, codebook: Tensor, metric: str) -> Cells | None:
    """What ``prepare`` made for such a codebook, or None.

    Whether it was made of this very codebook is known on the device: ``pruned`` looks.
    """
    if not prepared or metric != "l2" or codebook.shape[1] > bound.MAX_DIM:
        return None
    block = prepared[0]
    if block.dtype is not torch.uint8 or block.device != codebook.device or block.ndim != 2:
        return None
    fits = len(block) > 0 and block.shape == block_shape(*codebook.shape, len(block))
    if not fits or not block.is_contiguous() or block.data_ptr() % _ALIGNED:
        return None
    return views(block, *codebook.shape)
