"""gather_rows: the rows of all ranks of a process group."""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from torch import Tensor

from vqkernels._layout import as_rows, row_shape
from vqkernels.distributed import resolve
from vqkernels.ops._gathered import gathered
from vqkernels.ops._library import define


def _impl(
    x: Tensor, mask: Tensor | None, channel_dim: int, group: str
) -> tuple[Tensor, Tensor, Tensor]:
    """(rows of all ranks, which of them count, numbers of this rank's), rank after rank.

    Sizes first, which the host reads; then rows and mask as bytes, padded to the longest part.
    Runs in a recompute too, which needs the rows: on every rank.
    """
    process_group = resolve(group)
    rows = as_rows(x, channel_dim).contiguous()
    n, width = len(rows), rows.shape[1] * rows.element_size()
    lengths = gathered(torch.tensor([n], device=x.device), process_group).flatten().tolist()
    packed = x.new_zeros(max(lengths), width + 1, dtype=torch.uint8)
    packed[:n, :width] = rows.view(torch.uint8)
    packed[:n, width] = 1 if mask is None else mask.reshape(-1)
    parts = gathered(packed, process_group)
    union = torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])
    start = sum(lengths[: dist.get_rank(process_group)])
    return (
        union[:, :width].clone(memory_format=torch.contiguous_format).view(x.dtype),
        union[:, width] != 0,
        torch.arange(start, start + n, device=x.device),
    )


def _fake(
    x: Tensor, mask: Tensor | None, channel_dim: int, group: str
) -> tuple[Tensor, Tensor, Tensor]:
    total = torch.library.get_ctx().new_dynamic_size()
    n = math.prod(row_shape(x, channel_dim))
    return (
        x.new_empty(total, x.shape[channel_dim]),
        x.new_empty(total, dtype=torch.bool),
        x.new_empty(n, dtype=torch.int64),
    )


gather_rows = define(
    "gather_rows(Tensor x, Tensor? mask, int channel_dim, str group) "
    "-> (Tensor rows, Tensor kept, Tensor own)",
    _impl,
    _fake,
)
