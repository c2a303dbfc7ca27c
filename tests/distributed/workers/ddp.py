"""DistributedDataParallel around a model with a quantizer inside."""

from __future__ import annotations

import io
import warnings
from typing import Any

import torch
import torch.distributed as dist
from modules import assert_same_state, quantizer, snapshot
from ranks import ALONE, RANK, D, assert_close, assert_ranks_equal, on_its_own, parts
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import vqkernels as vq

KINDS: dict[str, dict[str, Any]] = {
    "EMA": {"update": vq.EMA(decay=0.8)},
    "EMA every 2, cosine": {"update": vq.EMA(decay=0.8, every=2), "metric": "cosine"},
    "Gradient": {"update": vq.Gradient()},
}


# Buffers sent from rank 0 before every forward, and never, not even at the start.
BUFFERS = ({"broadcast_buffers": True}, {"broadcast_buffers": False})
warnings.filterwarnings("ignore", message="`broadcast_buffers`")  # torch 2.13 has a new name


class Model(nn.Module):
    def __init__(self, make: Any, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.encoder = nn.Linear(D, D)
        self.quantizer = make()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        out = self.quantizer(self.encoder(x), mask)
        return out.quantized.square().sum() + out.loss


def trained(module: nn.Module, batches: list[Tensor], optimizer: Any = None) -> Any:
    optimizer = optimizer or torch.optim.Adam(module.parameters(), lr=0.01)
    for x in batches:
        module(x).backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


def batches(count: int, sizes: list[int], first: int = 0) -> list[Tensor]:
    return [parts(sizes, seed=first + step)[RANK] for step in range(count)]


def ranks_stay_alike() -> None:
    """Encoder and codebook, with k-means and revival, uneven and empty batches."""
    for buffers in BUFFERS:
        for options in KINDS.values():
            model = Model(lambda o=options: quantizer(seed=RANK, **o), RANK)
            wrapped = DistributedDataParallel(model, **buffers)
            optimizer = trained(wrapped, batches(3, [20, 7]))
            trained(wrapped, batches(2, [0, 9], first=3), optimizer)
            assert_ranks_equal(model)
        levels = Model(lambda: vq.nn.ResidualVQ(lambda: quantizer(seed=RANK), 3), RANK)
        trained(DistributedDataParallel(levels, **buffers), batches(4, [0, 20]))
        assert levels.quantizer.quantizers[2].initialised == 1
        assert_ranks_equal(levels)


def an_all_masked_rank_stays_alike() -> None:
    model = Model(lambda: quantizer(seed=RANK, update=vq.Gradient()), RANK)
    wrapped = DistributedDataParallel(model)
    for x in batches(3, [20]):
        wrapped(x, torch.full((20,), RANK != 1)).backward()
        assert_ranks_equal(model)


def the_codebook_is_that_of_one_process_on_the_union() -> None:
    for buffers in BUFFERS:
        model = Model(lambda: quantizer(init="normal", revive=None), 0)
        single = on_its_own(model)
        wrapped = DistributedDataParallel(model, **buffers)
        for step in range(4):
            rows = parts([12, 0, 30], seed=step)
            wrapped(rows[RANK])
            single(torch.cat(rows))
            assert_ranks_equal(model)
            assert_close(model.quantizer, single.quantizer)


def a_file_that_only_one_rank_has_loaded_reaches_all() -> None:
    source = Model(lambda: quantizer(process_group=ALONE), 5)
    trained(source, [parts([40])[0]])
    for buffers in BUFFERS:
        model = Model(lambda: quantizer(seed=RANK), RANK)
        if RANK == 0:
            model.load_state_dict(source.state_dict())
        trained(DistributedDataParallel(model, **buffers), batches(2, [9, 4]))
        assert_ranks_equal(model)


def evaluation_on_one_rank_leaves_the_ranks_alike() -> None:
    """Codes of a Parameter that fall due for revival on rank 0 alone: DDP would tell the other
    ranks that nothing is pending, and not that the codes have moved.
    """
    far = torch.full((16, D), 100.0)
    for buffers in BUFFERS:
        for update in (vq.EMA(decay=0.8), vq.Gradient()):
            model = Model(lambda u=update: quantizer(init=far, update=u), 0)
            model.quantizer.cluster_size.fill_(0.01)
            wrapped = DistributedDataParallel(model, **buffers)
            for x in batches(4, [20, 3]):
                wrapped(x).backward()
                if RANK == 0:
                    model.eval()
                    model(parts([50])[0])
                    model.train()
            wrapped(batches(1, [20, 3])[0])
            assert_ranks_equal(model)
            assert (model.quantizer.codebook.abs().amax(dim=1) < 50).any()  # some were revived


def resumed_training_is_the_same_training() -> None:
    """k + m steps, and k steps, save on rank 0, load, m steps: bit for bit."""
    for options in (*KINDS.values(), {"update": None}):

        def make(seed: int, options: dict[str, Any] = options) -> tuple[Model, Any]:
            model = Model(lambda: quantizer(seed=seed, **options), seed)
            # DDP orders its buckets anew after its first step, and with them the additions over
            # more than two ranks; not where it looks for unused parameters.
            return model, DistributedDataParallel(model, find_unused_parameters=True)

        steps = batches(6, [12, 5])
        straight, wrapped = make(RANK)
        trained(wrapped, steps)
        first, wrapped = make(RANK)
        optimizer = trained(wrapped, steps[:3])
        file = io.BytesIO()
        torch.save((first.state_dict(), optimizer.state_dict()), file)
        received: list[Any] = [file.getvalue()]
        dist.broadcast_object_list(received)
        state, optimizer_state = torch.load(io.BytesIO(received[0]))
        second, wrapped = make(RANK + 10)
        second.load_state_dict(state)
        optimizer = torch.optim.Adam(wrapped.parameters(), lr=0.01)
        optimizer.load_state_dict(optimizer_state)
        trained(wrapped, steps[3:], optimizer)
        assert_same_state(second, snapshot(straight))
        assert_ranks_equal(second)


CHECKS = (
    ranks_stay_alike,
    an_all_masked_rank_stays_alike,
    the_codebook_is_that_of_one_process_on_the_union,
    a_file_that_only_one_rank_has_loaded_reaches_all,
    evaluation_on_one_rank_leaves_the_ranks_alike,
    resumed_training_is_the_same_training,
)
