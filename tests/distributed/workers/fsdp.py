"""fully_shard around a model with a quantizer inside."""

from __future__ import annotations

import re

import pytest
import torch
from modules import quantizer
from ranks import RANK, SIZE, D, assert_close, assert_ranks_equal, on_its_own, parts
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

import vqkernels as vq

MESH = init_device_mesh("cpu", (SIZE,))


class Model(nn.Module):
    def __init__(self, **options: object) -> None:
        super().__init__()
        torch.manual_seed(RANK)
        self.encoder = nn.Linear(D, D)
        self.quantizer = quantizer(seed=RANK, **options)

    def forward(self, x: Tensor) -> Tensor:
        out = self.quantizer(self.encoder(x))
        return out.quantized.square().sum() + out.loss


def moving_averages_are_buffers_and_work() -> None:
    """k-means, revival, rank-dependent seeds, under a bfloat16 policy too."""
    for policy in (MixedPrecisionPolicy(), MixedPrecisionPolicy(param_dtype=torch.bfloat16)):
        model = Model(update=vq.EMA(decay=0.8))
        fully_shard(model.quantizer, mesh=MESH, mp_policy=policy)
        fully_shard(model, mesh=MESH, mp_policy=policy)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for step in range(4):
            model(parts([20, 0, 7], seed=step)[RANK]).backward()
            optimizer.step()
            optimizer.zero_grad()
            assert_ranks_equal(model.quantizer)
        assert model.quantizer.initialised == 1
        assert model.quantizer.codebook.dtype == torch.float32


def the_codebook_is_that_of_one_process_on_the_union() -> None:
    module = quantizer(init="normal", revive=None)
    single = on_its_own(module)
    fully_shard(module, mesh=MESH)
    for step in range(4):
        rows = parts([20, 0, 7], seed=step)
        module(rows[RANK])
        single(torch.cat(rows))
        assert_ranks_equal(module)
        assert_close(module, single)


def a_parameter_that_was_initialised_before_is_trained_by_the_optimizer() -> None:
    model = Model(update=vq.Gradient(), revive=None)
    model.quantizer.init_codebook(parts([30, 5])[RANK])
    start = model.quantizer.codebook.detach().clone()
    fully_shard(model, mesh=MESH)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for step in range(3):
        model(parts([20, 7], seed=step)[RANK]).backward()
        optimizer.step()
        optimizer.zero_grad()
        model.quantizer.flush()  # until the next forward no rank has the whole codebook
        model.eval()
        model.train()
    codebook = model.quantizer.codebook.full_tensor()
    assert not torch.equal(codebook, start)
    assert (codebook - start).abs().max() < 0.5


def what_a_sharded_parameter_would_lose_is_refused() -> None:
    """k-means and revival write into the copy that FSDP frees after the forward."""
    for options, fix in (
        ({"revive": None}, "call init_codebook(x) on every rank first"),
        ({"init": "normal"}, "revive must be None"),
    ):
        model = Model(update=vq.Gradient(), **options)
        fully_shard(model, mesh=MESH)
        model.eval()
        model(parts([20])[RANK])
        model.train()
        with pytest.raises(RuntimeError, match=re.escape(fix)):
            model(parts([20])[RANK])


CHECKS = (
    moving_averages_are_buffers_and_work,
    the_codebook_is_that_of_one_process_on_the_union,
    a_parameter_that_was_initialised_before_is_trained_by_the_optimizer,
    what_a_sharded_parameter_would_lose_is_refused,
)
