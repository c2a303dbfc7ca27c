"""What a training loop owes the codebooks: one start for any number of ranks, one move a step."""

from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

import vqkernels as vq


def quantizers(module: nn.Module) -> list[vq.nn.VectorQuantizer]:
    """Every codebook inside a module."""
    return [part for part in module.modules() if isinstance(part, vq.nn.VectorQuantizer)]


def move_once_per_step(module: nn.Module, accumulate: int) -> None:
    """Lets moving averages gather the batches of a step that is split, as gradients do."""
    for quantizer in quantizers(module):
        if isinstance(quantizer.update, vq.EMA):
            quantizer.update = replace(quantizer.update, every=accumulate)


@torch.no_grad()
def initialise(objective: nn.Module, batch: tuple[Tensor, ...]) -> None:
    """Runs the k-means of every codebook on one batch of all ranks' items.

    A quantizer would start by itself, on its first training batch. But then ranks would seed
    k-means with other rows than one process that has the whole batch, and the trainings would
    differ from the first step on. Here each rank has the whole batch and computes alone.

    Args:
        objective: its quantizers are initialised in the order in which a forward reaches them.
        batch: what `objective` takes; the same on every rank.
    """
    # A quantizer of several parts may never call the parts as modules.
    found = [part for part in objective.modules() if hasattr(part, "init_codebook")]
    if not found:
        return
    alone = dist.new_subgroups(1)[0] if dist.is_initialized() else None

    def before(quantizer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        start: Any = quantizer
        for codebook in quantizers(start):
            codebook.process_group = alone
        start.init_codebook(inputs[0])
        for codebook in quantizers(start):
            codebook.process_group = None

    hooks = [quantizer.register_forward_pre_hook(before) for quantizer in found]
    objective.eval()
    objective(*batch)
    for hook in hooks:
        hook.remove()
