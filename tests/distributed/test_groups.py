"""The process_group argument, in one process."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest
import torch.distributed as dist
from modules import UPDATES, assert_same_state, batches, quantizer, snapshot

import vqkernels as vq


@pytest.fixture
def group() -> Iterator[dist.ProcessGroup]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield dist.new_group([0])
    if dist.is_initialized():
        dist.destroy_process_group()


@pytest.mark.parametrize("given", ["gloo", 0, object()])
def test_what_is_no_group_is_refused(given: object) -> None:
    with pytest.raises(TypeError, match=r"process_group must be a torch\.distributed\.Process"):
        quantizer(process_group=given)


def test_a_group_without_this_rank_is_refused() -> None:
    with pytest.raises(ValueError, match="process_group must be a group that this rank belongs"):
        quantizer(process_group=dist.GroupMember.NON_GROUP_MEMBER)


def test_a_group_of_one_is_no_group(group: dist.ProcessGroup) -> None:
    module, plain = quantizer(process_group=group), quantizer()
    for x in batches(3):
        module(x)
        plain(x)
    assert module.process_group is group
    assert plain.process_group is None
    assert_same_state(module, snapshot(plain))


@pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES)
def test_a_group_that_is_gone_is_missed_in_training_only(
    group: dist.ProcessGroup, update: vq.EMA | vq.Gradient | None
) -> None:
    pickled = pickle.dumps(quantizer(update=update, process_group=group))
    dist.destroy_process_group()
    module = pickle.loads(pickled)
    (x,) = batches(1)
    module.eval()
    module(x)
    module.decode(module.encode(x))
    before = snapshot(module)
    module.train()
    with pytest.raises(RuntimeError, match="process_group must exist in this process, got one"):
        module(x)
    assert_same_state(module, before)
    module.process_group = None
    module(x)
