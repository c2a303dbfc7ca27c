"""replicate_: every rank takes over the state of the first rank of a process group."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from vqkernels.distributed import resolve
from vqkernels.ops import _owners
from vqkernels.ops._library import define, in_recompute, no_result


def _impl(
    state: list[Tensor], initialised: list[Tensor], owners: list[Tensor], group: str
) -> None:
    """One collective for all tensors, as 32-bit words: the bits of one rank, and zeros, add up to
    the same bits. Then tells the owners, who decide by it what the next steps leave out: it is the
    first rank's initialisation that counts. Does nothing in a recompute.
    """
    if in_recompute():
        return
    process_group = resolve(group)
    tensors = [*state, *initialised]
    words = torch.cat([tensor.reshape(-1).view(torch.int32) for tensor in tensors])
    if dist.get_rank(process_group) != 0:
        words.zero_()
    dist.all_reduce(words, group=process_group)
    sizes = [tensor.numel() * tensor.element_size() // 4 for tensor in tensors]
    for tensor, part in zip(tensors, words.split(sizes), strict=True):
        # A clone: where a part starts, int64 may not lie.
        tensor.copy_(part.clone().view(tensor.dtype).reshape(tensor.shape))
    for flag, key in zip(initialised, owners, strict=True):
        owner = _owners.find(key)
        if owner is not None:
            owner._initialisation_is(bool(flag))
            owner._ranks_are_alike()


replicate_ = define(
    "replicate_(Tensor(a!)[] state, Tensor(b!)[] initialised, Tensor[] owners, str group) -> ()",
    _impl,
    no_result,
)
