"""partition: a codebook's cells, for searches while it moves.

Any partition is exact; one that no longer fits only has more codes looked at. So it is kept from
step to step, and found again when searches say that it is worn.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels.backends import native
from vqkernels.ops._library import define
from vqkernels.ops.prepare import on_cpu


def _cells(codebook: Tensor, backend: str | None) -> int:
    k, d = codebook.shape
    return native.suitable_cells(k, d) if on_cpu(codebook, backend) else 0


def _impl(codebook: Tensor, backend: str | None) -> list[Tensor]:
    cells = _cells(codebook, backend)
    return [native.partition(codebook, cells)] if cells else []


def _fake(codebook: Tensor, backend: str | None) -> list[Tensor]:
    cells = _cells(codebook, backend)
    if not cells:
        return []
    size = native.partition_bytes(codebook.shape[1], cells)
    return [codebook.new_empty(size, dtype=torch.uint8)]


partition = define("partition(Tensor codebook, str? backend) -> Tensor[]", _impl, _fake)


def is_worn(parts: list[Tensor], codebook: Tensor) -> bool:
    """Whether searches found that what ``partition`` returned fits the codebook no longer."""
    return bool(parts) and native.is_worn(parts, codebook.shape[1])
