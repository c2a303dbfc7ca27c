"""gather_rows: the rows of all ranks of a process group."""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from torch import Tensor

from vqkernels._layout import as_rows, row_shape
from vqkernels.distributed import resolve
from vqkernels.ops._library import define


def _impl(
    x: Tensor, mask: Tensor | None, channel_dim: int, group: str
) -> tuple[Tensor, Tensor, Tensor]:
    """(rows of all ranks, which of them count, numbers of this rank's), rank after rank.

    Sizes first, which the host reads; then rows and mask as bytes, padded to the longest part.
    Runs in a recompute too, which needs the rows: on every rank.
    """
    process_group = resolve(group)
    rank, size = dist.get_rank(process_group), dist.get_world_size(process_group)
    rows = as_rows(x, channel_dim).contiguous()
    n = torch.tensor([len(rows)], device=x.device)
    sizes = n.new_empty(size)
    dist.all_gather_into_tensor(sizes, n, group=process_group)
    parts = sizes.tolist()
    width = rows.shape[1] * rows.element_size()
    packed = x.new_zeros(max(parts), width + 1, dtype=torch.uint8)
    packed[: len(rows), :width] = rows.view(torch.uint8)
    packed[: len(rows), width] = 1 if mask is None else mask.reshape(-1)
    everyone = packed.new_empty(size * len(packed), width + 1)
    if len(packed) > 0:
        dist.all_gather_into_tensor(everyone, packed, group=process_group)
    everyone = torch.cat(
        [part[:length] for part, length in zip(everyone.chunk(size), parts, strict=False)]
    )
    start = sum(parts[:rank])
    return (
        everyone[:, :width].clone(memory_format=torch.contiguous_format).view(x.dtype),
        everyone[:, width] != 0,
        torch.arange(start, start + len(rows), device=x.device),
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
