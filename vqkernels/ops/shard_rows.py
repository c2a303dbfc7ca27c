"""shard_rows: codes back to vectors where the codes are split over the ranks of a group."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from vqkernels.distributed import resolve
from vqkernels.ops._library import define
from vqkernels.ops.lookup import refuse_out_of_range


def _impl(
    indices: Tensor, codebook: Tensor, first: int, num_codes: int, group: str | None
) -> Tensor:
    """(N, D) codes of the whole codebook, whose rows from ``first`` are ``codebook``.

    Index -1 gives zeros. The owners' rows are summed as 32-bit words: one rank's bits, and zeros,
    add up to the same bits. An index out of range is refused on the CPU and gives a NaN row on
    CUDA. Runs in a recompute too, which needs the rows: on every rank.
    """
    flat = indices.reshape(-1).long()
    if flat.device.type == "cpu":
        refuse_out_of_range(flat, num_codes)
    own = flat - first
    mine = (own >= 0) & (own < len(codebook))
    words = codebook.view(torch.int32)[own.clamp(0, len(codebook) - 1)]
    words = torch.where(mine[:, None], words, 0)
    if group is not None:
        dist.all_reduce(words, group=resolve(group))
    beyond = (flat < -1) | (flat >= num_codes)
    return torch.where(beyond[:, None], torch.nan, words.view(torch.float32))


def _fake(
    indices: Tensor, codebook: Tensor, first: int, num_codes: int, group: str | None
) -> Tensor:
    return codebook.new_empty(indices.numel(), codebook.shape[1])


shard_rows = define(
    "shard_rows(Tensor indices, Tensor codebook, int first, int num_codes, str? group) -> Tensor",
    _impl,
    _fake,
)
