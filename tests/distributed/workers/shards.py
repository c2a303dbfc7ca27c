"""What the scripts on split codebooks need: the same codebook split and whole, and comparisons."""

from __future__ import annotations

from typing import Any

import cases
import torch
import torch.distributed as dist
from ranks import ALONE, RANK, SIZE, D
from torch import Tensor

import vqkernels as vq

K = 13  # neither 2 nor 4 divide it
PER_CODE = ("codebook", "cluster_size", "embed_sum", "pending_counts", "pending_sums", "idle")


def codes(seed: int = 5, k: int = K, d: int = D) -> Tensor:
    return torch.randn(k, d, generator=cases.generator(seed))


def split_and_whole(
    **options: Any,
) -> tuple[vq.nn.ShardedCodebook, vq.nn.VectorQuantizer]:
    gather = options.pop("gather", False)
    options = {"init": codes(), "revive": None, **options}
    sharded = vq.nn.ShardedCodebook(K, D, gather=gather, **options)
    return sharded, vq.nn.VectorQuantizer(K, D, process_group=ALONE, **options)


def whole_state(module: vq.nn.ShardedCodebook) -> dict[str, Tensor]:
    """The state of all codes, from all ranks."""
    everyone: list[Any] = [None] * SIZE
    dist.all_gather_object(everyone, module.state_dict())
    for state in everyone:
        for name in ("clock", "pending_steps", "initialised"):
            assert torch.equal(state[name], everyone[0][name]), name
    return {
        name: torch.cat([state[name] for state in everyone])
        for name in PER_CODE
        if name in everyone[0]
    }


def assert_same_learning(sharded: vq.nn.ShardedCodebook, whole: vq.nn.VectorQuantizer) -> None:
    """Codes within 2e-6 of the largest value (the rounding of the mass), the rest bit for bit.

    The codes of ``whole`` are then made equal, so that the next steps may be compared in full.
    """
    state, expected = whole_state(sharded), whole.state_dict()
    difference = (state["codebook"] - whole.codebook).abs().max()
    assert difference <= 2e-6 * whole.codebook.abs().max(), difference
    for name in state.keys() - {"codebook"}:
        assert torch.equal(state[name], expected[name]), name
    whole.codebook.copy_(state["codebook"])
    assert sharded._shard.clock == whole.clock


def step(module: Any, x: Tensor, mask: Tensor | None = None) -> list[Tensor]:
    """Everything that a step returns, and the gradient of x."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    out = module(x, mask)
    (out.loss + out.quantized.float().sin().sum()).backward()
    assert x.grad is not None
    return [out.quantized, out.indices, out.loss, out.usage.counts, out.usage.mse, x.grad]


def assert_same_step(found: list[Tensor], expected: list[Tensor]) -> None:
    """Bit for bit, NaN included."""
    for got, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=0, equal_nan=True)
        assert got.stride() == wanted.stride()


def own(rows: list[Tensor]) -> Tensor:
    return rows[RANK]
