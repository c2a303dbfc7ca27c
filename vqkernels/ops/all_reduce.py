"""all_reduce_: the sum over the ranks of a process group, as an op."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor

from vqkernels.distributed import resolve
from vqkernels.ops._library import define, in_recompute, no_result


def _impl(packed: Tensor, group: str) -> None:
    """In place. Does nothing in a recompute, whose ranks would not be at the same place."""
    if not in_recompute():
        dist.all_reduce(packed, group=resolve(group))


all_reduce_ = define(
    "all_reduce_(Tensor(a!) packed, str group) -> ()",
    _impl,
    no_result,
)
