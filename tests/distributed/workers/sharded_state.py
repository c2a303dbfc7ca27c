"""A split codebook in files, copies, groups, wrappers and under DDP."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
import torch.distributed as dist
from modules import projected
from ranks import ALONE, RANK, SIZE, D, parts
from shards import (
    K,
    assert_same_learning,
    assert_same_step,
    codes,
    split_and_whole,
    step,
    whole_state,
)
from torch import Tensor, nn

import vqkernels as vq

UNEVEN = [7, 0, 20, 1]


def decoded_rows_are_those_of_the_whole_codebook() -> None:
    for metric in ("l2", "cosine"):
        sharded, whole = split_and_whole(metric=metric)
        indices = torch.tensor([[0, K - 1, -1], [4, 8, 4]])
        assert torch.equal(sharded.decode(indices), whole.decode(indices))
        sharded, _ = split_and_whole(metric=metric, gather=True)
        mine = (torch.arange(3 * RANK) + RANK) % K
        found = sharded.decode(mine.to(torch.int32))
        assert torch.equal(found, whole.decode(mine))
    with pytest.raises(ValueError, match=r"indices must be in \[-1, 12\], got 13"):
        sharded.decode(torch.tensor([0, K]))


def resumed_training_is_the_same_training() -> None:
    options: dict[str, Any] = {
        "init": "kmeans",
        "gather": True,
        "update": vq.EMA(decay=0.8, every=2),
        "revive": vq.Revive(candidates=8, age=20.0),
    }
    batches = [parts(UNEVEN, seed=number)[RANK] for number in range(7)]
    torch.manual_seed(RANK)
    straight = split_and_whole(**options)[0]
    first = copy.deepcopy(straight)
    for x in batches:
        straight(x)
    for x in batches[:3]:
        first(x)
    file = io.BytesIO()
    torch.save(nn.Sequential(first).state_dict(), file)
    second = nn.Sequential(split_and_whole(**options)[0])
    assert second.load_state_dict(torch.load(io.BytesIO(file.getvalue()))).missing_keys == []
    for x in batches[3:]:
        second(x)
    for name, value in straight.state_dict().items():
        assert torch.equal(second.state_dict()[f"0.{name}"], value), name


def files_of_other_codes_are_refused() -> None:
    sharded, whole = split_and_whole()
    before = {name: value.clone() for name, value in sharded.state_dict().items()}
    first, stop, _ = sharded._shard.part.tolist()
    neighbour: list[Any] = [None] * SIZE
    dist.all_gather_object(neighbour, before)
    longer = vq.nn.ShardedCodebook(K + SIZE, D).state_dict()
    for state, message in (
        (neighbour[RANK ^ 1], rf"part must be codes {first} to {stop} of 13, got codes"),
        (longer, r"part must be codes .* of 13, got codes .* of"),
        (vq.nn.ShardedCodebook(K, D + 1).state_dict(), "codebook must have shape"),
        (whole.state_dict(), "codebook must have shape"),
        ({name: before[name] for name in before.keys() - {"part"}}, "Missing key.*part"),
        ({**before, "more": before["idle"]}, "Unexpected key.*more"),
    ):
        with pytest.raises(RuntimeError, match=message):
            sharded.load_state_dict(state)
        if "key" not in message:
            assert_same_step(list(sharded.state_dict().values()), list(before.values()))


def a_wrapper_loads_all_or_nothing() -> None:
    module = projected(split_and_whole()[0], 9)
    state = projected(vq.nn.ShardedCodebook(K + SIZE, D), 9).state_dict()
    state["project_in.weight"] = torch.zeros_like(state["project_in.weight"])
    with pytest.raises(RuntimeError, match=r"quantizer\.part must be"):
        module.load_state_dict(state)
    assert module.project_in.weight.any()


def wrapped_and_whole_learn_alike() -> None:
    sharded, whole = split_and_whole(update=vq.EMA(decay=0.8))
    split_module, whole_module = projected(sharded, 9), projected(whole, 9)
    for number in range(3):
        x = torch.cat(parts([8], seed=number, d=9))
        assert_same_step(step(split_module, x), step(whole_module, x))
        split_module.flush()
        whole_module.flush()
        assert_same_learning(sharded, whole)


def copies_keep_codes_and_group() -> None:
    sharded, _ = split_and_whole(revive=vq.Revive())
    x = torch.cat(parts([8]))
    sharded(x)
    for twin in (copy.deepcopy(sharded), pickle.loads(pickle.dumps(sharded))):
        before = sharded.codebook.clone()
        assert_same_step(step(twin, x), step(copy.deepcopy(sharded), x))
        assert not torch.equal(twin.codebook, sharded.codebook)
        assert torch.equal(sharded.codebook, before)
        assert twin.process_group is sharded.process_group


def dtypes_leave_the_codes_alone() -> None:
    sharded, _ = split_and_whole()
    before = sharded.codebook.clone()
    model = nn.Sequential(sharded).half().to(torch.bfloat16)
    assert model[0].codebook.dtype == torch.float32
    assert torch.equal(model[0].codebook, before)


def pairs_split_their_own_codebooks() -> None:
    pairs = [dist.new_group([first, first + 1]) for first in range(0, SIZE, 2)]
    group = pairs[RANK // 2]
    module = vq.nn.ShardedCodebook(K, D, init=codes(), group=group, gather=True)
    assert module.process_group is group
    x = parts(UNEVEN)[RANK]
    assert module.codebook.shape[0] == (7, 6)[RANK % 2]
    expected = vq.nearest_code(x, codes()).indices
    assert torch.equal(module(x).indices, expected)


def a_group_of_one_rank_holds_everything() -> None:
    module = vq.nn.ShardedCodebook(K, D, init=codes(), group=ALONE, gather=True)
    x = parts(UNEVEN, seed=RANK)[RANK]
    assert torch.equal(module(x).indices, vq.nearest_code(x, codes()).indices)
    assert torch.equal(module.codebook, codes())


class _Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Linear(D, D)
        self.quantizer, _ = split_and_whole(gather=True, update=vq.EMA(decay=0.8))

    def forward(self, x: Tensor) -> Tensor:
        out = self.quantizer(self.encoder(x))
        return out.quantized.square().sum() + out.loss


def ddp_leaves_every_rank_its_codes() -> None:
    """Wrapped, and in every forward, DDP gives all ranks the buffers of the first one."""
    model, bare = _Model(), _Model()
    wrapped = nn.parallel.DistributedDataParallel(model)
    for number in range(3):
        x = parts(UNEVEN, seed=number)[RANK]
        wrapped(x).backward()
        bare(x)
    bare.quantizer.flush()
    model.quantizer.flush()
    found, expected = whole_state(model.quantizer), whole_state(bare.quantizer)
    assert_same_step(list(found.values()), list(expected.values()))
    assert found["codebook"].shape[0] == K


CHECKS = (
    decoded_rows_are_those_of_the_whole_codebook,
    resumed_training_is_the_same_training,
    files_of_other_codes_are_refused,
    a_wrapper_loads_all_or_nothing,
    wrapped_and_whole_learn_alike,
    copies_keep_codes_and_group,
    dtypes_leave_the_codes_alone,
    pairs_split_their_own_codebooks,
    a_group_of_one_rank_holds_everything,
    ddp_leaves_every_rank_its_codes,
)
