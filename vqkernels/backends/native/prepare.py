"""prepare, partition: what the search on the CPU derives from a codebook ahead of time."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels.backends.native._arguments import (
    METRIC,
    contiguous_codes,
    prepared_block,
    rows_of,
    threads,
)
from vqkernels.backends.native._core import core


def suitable_cells(num_codes: int, dim: int) -> int:
    """How many cells a codebook is packed in if nobody asks for a number; 0 for none."""
    return int(core.suitable_cells(num_codes, dim))


def prepared_bytes(num_codes: int, dim: int, cells: int) -> int:
    return int(core.prepared_bytes(num_codes, dim, cells))


def partition_bytes(dim: int, cells: int) -> int:
    return int(core.partition_bytes(dim, cells))


def prepare(codebook: Tensor, metric: str, cells: int) -> Tensor:
    """The codebook packed for the search at the level in use, with a copy of itself."""
    codes = contiguous_codes(codebook)
    k, d = codes.shape
    # torch aligns its CPU memory to 64 bytes, which the panels need.
    packed = codes.new_empty(prepared_bytes(k, d, cells), dtype=torch.uint8)
    work = (64 + 8 * cells) * codes.numel()
    core.prepare(codes.data_ptr(), k, d, METRIC[metric], cells, packed.data_ptr(), threads(work))
    return packed


def partition(codebook: Tensor, cells: int) -> Tensor:
    """The centres of the cells of a codebook, for searches after it has moved."""
    codes = contiguous_codes(codebook)
    k, d = codes.shape
    found = codes.new_empty(partition_bytes(d, cells), dtype=torch.uint8)
    core.partition(
        codes.data_ptr(), k, d, cells, found.data_ptr(), threads(8 * cells * codes.numel())
    )
    return found


def is_worn(parts: list[Tensor], dim: int) -> bool:
    """Whether searches found that a partition no longer fits the codebook and the rows."""
    return bool(core.is_worn(prepared_block(parts), dim))


def visited_share(
    x: Tensor, codebook: Tensor, prepared: list[Tensor] | None, metric: str, channel_dim: int
) -> float | None:
    """The share of the codes that a search would look at; None if it looks at all of them."""
    codes = contiguous_codes(codebook)
    share = core.visited_share(
        rows_of(x, channel_dim),
        codes.data_ptr(),
        codes.shape[0],
        METRIC[metric],
        prepared_block(prepared),
        threads(x.numel() * codes.shape[0]),
    )
    return share if share >= 0 else None
