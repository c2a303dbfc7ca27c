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
    """One collective for all tensors, as bytes: those of one rank, and zeros, add up to the same
    bytes, whatever dtype an engine has given a codebook. Then tells the owners, who decide by it
    what the next steps leave out: it is the first rank's initialisation that counts. Does nothing
    in a recompute.
    """
    if in_recompute():
        return
    process_group = resolve(group)
    tensors = [*state, *initialised]
    data = torch.cat([tensor.reshape(-1).view(torch.uint8) for tensor in tensors])
    if dist.get_rank(process_group) != 0:
        data.zero_()
    dist.all_reduce(data, group=process_group)
    sizes = [tensor.numel() * tensor.element_size() for tensor in tensors]
    for tensor, part in zip(tensors, data.split(sizes), strict=True):
        # A clone: where a part starts, a wider dtype may not lie.
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
