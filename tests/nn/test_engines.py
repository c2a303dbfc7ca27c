"""Engines that own the parameters: FSDP2 policies, and a flat half-precision buffer."""

from __future__ import annotations

from collections.abc import Iterator

import oracle
import pytest
import torch
import torch.distributed as dist
from modules import UPDATES, assert_same_state, batches, quantizer, snapshot
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

import vqkernels as vq


class _FlatEngine:
    """In the manner of DeepSpeed: one bfloat16 buffer, written from float32 masters."""

    def __init__(self, model: nn.Module, lr: float) -> None:
        self.parameters, self.lr = list(model.bfloat16().parameters()), lr
        self.masters = [p.detach().float().clone() for p in self.parameters]
        flat = torch.cat([p.detach().bfloat16().reshape(-1) for p in self.parameters])
        pieces = flat.split([p.numel() for p in self.parameters])
        for parameter, piece in zip(self.parameters, pieces, strict=True):
            parameter.data = piece.view(parameter.shape)

    def step(self) -> None:
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            assert parameter.grad is not None
            master -= self.lr * parameter.grad.float()
            parameter.data.copy_(master)
            parameter.grad = None


@pytest.mark.parametrize("update", [vq.EMA(decay=0.8), None], ids=str)
def test_a_flattening_engine_leaves_an_ema_codebook_as_it_is(update: vq.EMA | None) -> None:
    """Every master copy that it writes back is of a parameter: the codebook is none."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), quantizer(update=update))
    alone = quantizer(update=update)
    engine = _FlatEngine(model, lr=0.1)
    for x in batches(5):
        out = model(x.bfloat16())
        alone(model[0](x.bfloat16()))
        (out.quantized.float().square().mean() + out.loss).backward()
        engine.step()
    assert_same_state(model[1], snapshot(alone))
    assert model[1].codebook.dtype == torch.float32


def test_a_flattening_engine_decides_the_dtype_of_a_gradient_codebook() -> None:
    """It re-points the Parameter: the search is exact on the rounded codes, the masters learn."""
    module = quantizer(update=vq.Gradient(), init="normal", revive=None)
    engine = _FlatEngine(module, lr=0.5)
    (x,) = batches(1)
    losses = []
    for _ in range(30):
        out = module(x)
        nearest, _ = oracle.nearest_code(x, module.codebook.detach(), "l2")
        assert torch.equal(out.indices, torch.from_numpy(nearest))
        out.loss.backward()
        engine.step()
        losses.append(float(out.loss.detach()))
    assert module.codebook.dtype == torch.bfloat16
    assert losses[-1] < 0.9 * losses[0]
    fresh = quantizer(seed=9, update=vq.Gradient(), init="normal", revive=None)
    fresh.load_state_dict(module.state_dict())
    assert fresh.codebook.dtype == torch.float32
    assert torch.equal(fresh.codebook, engine.masters[0].bfloat16().float())


@pytest.fixture(scope="module")
def mesh() -> Iterator[DeviceMesh]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


POLICIES = {
    "bfloat16": MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32),
    "bfloat16 out": MixedPrecisionPolicy(torch.bfloat16, output_dtype=torch.bfloat16),
}


@pytest.mark.parametrize("itself", [False, True], ids=["in a sharded model", "sharded itself"])
@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("update", [vq.EMA(decay=0.8), None], ids=str)
def test_fsdp_policies_change_no_bit_of_the_state(
    update: vq.EMA | None, policy: MixedPrecisionPolicy, itself: bool, mesh: DeviceMesh
) -> None:
    """The policy gives the quantizer x in bfloat16, and may round what it returns."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), quantizer(update=update))
    alone = quantizer(update=update)
    met: list[Tensor] = []
    model[1].register_forward_pre_hook(lambda _, arguments: met.append(arguments[0].detach()))
    if itself:
        fully_shard(model[1], mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for x in batches(4):
        out = model(x)
        expected = alone(met[-1])
        assert torch.equal(out.indices, expected.indices)
        assert torch.equal(out.quantized, expected.quantized)
        (out.quantized.float().square().mean() + out.loss).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert met[-1].dtype == torch.bfloat16
    assert_same_state(model[1], snapshot(alone))


def test_fsdp_gathers_a_gradient_codebook_in_the_dtype_of_its_policy(mesh: DeviceMesh) -> None:
    """What is sharded, and what the optimizer sees, stays float32."""
    module = quantizer(update=UPDATES["Gradient"], init="normal", revive=None)
    codes = module.codebook.detach().clone()
    fully_shard(module, mesh=mesh, mp_policy=POLICIES["bfloat16"])
    (x,) = batches(1)
    out = module(x)
    nearest, _ = oracle.nearest_code(x.bfloat16(), codes.bfloat16(), "l2")
    assert torch.equal(out.indices, torch.from_numpy(nearest))
    out.loss.backward()
    assert module.codebook.dtype == module.codebook.grad.dtype == torch.float32
    assert torch.equal(module.codebook.full_tensor(), codes)
