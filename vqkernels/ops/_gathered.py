"""What all ranks of a process group hold, for ops."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor


def gathered(tensor: Tensor, process_group: dist.ProcessGroup) -> Tensor:
    """(W, *shape) from every rank's tensor; the shapes are equal."""
    everyone = tensor.new_empty(dist.get_world_size(process_group), *tensor.shape)
    dist.all_gather(list(everyone), tensor, group=process_group)
    return everyone
