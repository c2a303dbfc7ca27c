"""torch.compile(fullgraph=True) and checkpointing with several ranks."""

from __future__ import annotations

import torch
from modules import assert_same_state, quantizer, snapshot
from ranks import ALONE, RANK, D, assert_ranks_equal, parts, reductions
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def a_compiled_step_is_the_eager_one() -> None:
    """The start, k-means, revival and statistics, with seeds and batch sizes that depend on the
    rank; in the first step one rank has no row.
    """
    torch._dynamo.reset()
    eager, module = quantizer(seed=RANK), quantizer(seed=RANK)
    call = torch.compile(module, fullgraph=True)
    for step in range(4):
        x = parts([33, (0, 20, 7)[step % 3]], seed=step)[RANK]
        assert torch.equal(call(x).indices, eager(x).indices)
        assert_same_state(module, snapshot(eager))
        assert_ranks_equal(module)
    assert reductions(lambda: call(x)) == 1


def a_file_that_only_one_rank_has_loaded_does_not_change_the_graph_of_the_others() -> None:
    torch._dynamo.reset()
    trained = quantizer(process_group=ALONE)
    trained(parts([40])[0])
    module = quantizer(seed=RANK)
    if RANK == 0:
        module.load_state_dict(trained.state_dict())
    call = torch.compile(module, backend="aot_eager", fullgraph=True)
    for step in range(3):
        call(parts([9, 4], seed=step)[RANK])
        assert_ranks_equal(module)
    assert module._init_done


class _Model(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.encoder = nn.Linear(D, D)
        self.quantizer = quantizer(seed=RANK)
        self.how = how

    def _region(self, z: Tensor) -> tuple[Tensor, Tensor]:
        out = self.quantizer(z.tanh())
        return out.quantized.sin(), out.loss  # the sine needs a recompute up to its input

    def forward(self, x: Tensor) -> Tensor:
        z = self.encoder(x)
        if self.how == "plain":
            quantized, loss = self._region(z)
        else:
            quantized, loss = checkpoint(self._region, z, use_reentrant=False)
        return quantized.square().mean() + loss


def a_recompute_communicates_nothing() -> None:
    """Nor does it when the ranks' first batches leave k-means open."""
    found = []
    for how in ("plain", "checkpoint", "compile(checkpoint)"):
        torch._dynamo.reset()
        torch.manual_seed(0)
        model = _Model(how)
        call = torch.compile(model, backend="aot_eager") if how == "compile(checkpoint)" else model
        gradients = []
        for step in range(4):
            x = parts([0] if step == 0 else [20, 8], seed=step)[RANK]
            loss = call(x)
            if step == 3:
                assert reductions(loss.backward) == 0
            else:
                loss.backward()
            gradients.append(model.encoder.weight.grad.clone())
        assert_ranks_equal(model.quantizer)
        found.append((snapshot(model), gradients))
    for state, gradients in found[1:]:
        assert_same_state_of(state, found[0][0])
        for got, expected in zip(gradients, found[0][1], strict=True):
            assert (got - expected).abs().max() <= 1e-6 * expected.abs().max()


def assert_same_state_of(state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, value in expected.items():
        assert torch.equal(state[name], value), name


CHECKS = (
    a_compiled_step_is_the_eager_one,
    a_file_that_only_one_rank_has_loaded_does_not_change_the_graph_of_the_others,
    a_recompute_communicates_nothing,
)
