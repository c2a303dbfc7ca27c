"""accelerate: prepare(model) and nothing else."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from modules import quantizer
from ranks import RANK, D, assert_ranks_equal, parts
from torch import Tensor, nn

ACCELERATOR = Accelerator(cpu=True, mixed_precision="bf16")


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(RANK)
        self.encoder = nn.Linear(D, D)
        self.quantizer = quantizer(seed=RANK)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        out = self.quantizer(self.encoder(x), mask)
        return out.quantized.float().square().sum() + out.loss


def a_prepared_model_trains_alike() -> None:
    model = Model()
    wrapped, optimizer = ACCELERATOR.prepare(model, torch.optim.Adam(model.parameters(), lr=0.01))
    assert type(wrapped) is nn.parallel.DistributedDataParallel
    for step in range(4):
        (x,) = (parts([20, 7], seed=step)[RANK],)
        ACCELERATOR.backward(wrapped(x, torch.full(x.shape[:1], RANK != 1)))
        optimizer.step()
        optimizer.zero_grad()
        assert_ranks_equal(model)
    assert model.quantizer.initialised == 1
    assert model.quantizer.codebook.dtype == torch.float32


CHECKS = (a_prepared_model_trains_alike,)
