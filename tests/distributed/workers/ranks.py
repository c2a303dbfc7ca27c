"""What the worker scripts need: rank, size, comparisons between ranks and with one process."""

from __future__ import annotations

import copy
import datetime
from collections.abc import Callable
from typing import Any

import cases
import modules
import torch
import torch.distributed as dist
from torch import Tensor, nn

import vqkernels as vq

torch.set_num_threads(1)
dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=30))
RANK, SIZE = dist.get_rank(), dist.get_world_size()
ALONE, _ = dist.new_subgroups(group_size=1)
K, D = modules.K, modules.D


def parts(sizes: list[int], seed: int = 70, d: int = D) -> list[Tensor]:
    """One batch cut into the ranks' parts, the same on every rank."""
    sizes = (sizes * SIZE)[:SIZE]
    batch = torch.randn(sum(sizes), d, generator=cases.generator(seed))
    return list(batch.split(sizes))


def gathered(tensor: Tensor) -> list[Tensor]:
    tensor = tensor.detach().contiguous()
    everyone = [torch.empty_like(tensor) for _ in range(SIZE)]
    dist.all_gather(everyone, tensor)
    return everyone


def assert_ranks_equal(module: nn.Module) -> None:
    """The same bits in every tensor of the state."""
    for name, tensor in module.state_dict().items():
        for other in gathered(tensor):
            assert torch.equal(other, tensor), name


def assert_close(found: nn.Module, expected: nn.Module) -> None:
    """The state within 2e-6 of the largest value in each tensor."""
    state = expected.state_dict()
    for name, tensor in found.state_dict().items():
        difference = (tensor.double() - state[name].double()).abs().max()
        assert difference <= 2e-6 * state[name].double().abs().max(), (name, difference)


def on_its_own(module: nn.Module) -> Any:
    """A copy that learns without the other ranks."""
    twin = copy.deepcopy(module)
    for child in twin.modules():
        if isinstance(child, vq.nn.VectorQuantizer):
            child.process_group = ALONE
    return twin


def reductions(call: Callable[[], Any]) -> int:
    """How many collectives ``call`` runs."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        call()
    return sum(event.count for event in profile.key_averages() if event.key == "c10d::allreduce_")
