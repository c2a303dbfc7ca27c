"""A checkpointed region computes what the plain one does, bit for bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from modules import UPDATES, assert_same_state, batches, quantizer, snapshot
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import vqkernels as vq


class _Model(nn.Module):
    def __init__(self, reentrant: bool | None, **options: object) -> None:
        super().__init__()
        self.encoder = nn.Linear(6, 6)
        self.quantizer = quantizer(**options)
        self.reentrant = reentrant

    def _region(self, z: Tensor) -> tuple[Tensor, Tensor]:
        out = self.quantizer(z.tanh())
        return out.quantized * 2.0, out.loss

    def forward(self, x: Tensor) -> Tensor:
        z = self.encoder(x)
        if self.reentrant is None:
            quantized, loss = self._region(z)
        else:
            quantized, loss = checkpoint(self._region, z, use_reentrant=self.reentrant)
        return quantized.square().mean() + loss


def _train(reentrant: bool | None, **options: object) -> tuple[dict, list[Tensor]]:
    torch.manual_seed(0)
    model = _Model(reentrant, **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    gradients = []
    for x in batches(6):
        model(x).backward()
        gradients += [p.grad.clone() for p in model.parameters() if p.grad is not None]
        optimizer.step()
        optimizer.zero_grad()
    return snapshot(model), gradients


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES)
def test_parameters_codebook_and_gradients_are_equal(
    update: vq.EMA | vq.Gradient | None, metric: str, reentrant: bool
) -> None:
    options = {"update": update, "metric": metric, "estimator": "rotation"}
    state, gradients = _train(None, **options)
    checkpointed_state, checkpointed_gradients = _train(reentrant, **options)
    for name, value in state.items():
        assert torch.equal(checkpointed_state[name], value), name
    assert len(gradients) == len(checkpointed_gradients)
    for first, second in zip(gradients, checkpointed_gradients, strict=True):
        assert torch.equal(first, second)


def test_a_first_batch_without_rows_is_recomputed_too() -> None:
    """k-means is still open in the recompute: it must not start there."""
    module = quantizer()
    x = batches(1)[0].requires_grad_()
    before = snapshot(module)
    mask = torch.zeros(64, dtype=torch.bool)
    checkpoint(lambda x: module(x, mask).quantized, x, use_reentrant=False).sum().backward()
    assert_same_state(module, before)


@pytest.mark.parametrize("reentrant", [False, True])
def test_two_checkpointed_forwards_before_one_backward(reentrant: bool) -> None:
    """The second forward applies the first one's statistics before the first is recomputed.

    Gradient accumulation over two forwards is EMA(every=2): the codebook stays.
    """
    states = []
    for mode in (None, reentrant):
        torch.manual_seed(0)
        model = _Model(mode, update=vq.EMA(every=2), init="normal")
        first, second = batches(2)
        (model(first) + model(second)).backward()
        states.append((snapshot(model), model.encoder.weight.grad))
    assert torch.equal(states[0][1], states[1][1])
    for name, value in states[0][0].items():
        assert torch.equal(states[1][0][name], value), name


def _two_forwards(module: nn.Module, reentrant: bool = False) -> Tensor:
    xs = [x.requires_grad_() for x in batches(2)]
    for x in xs:  # initialised: the codebook moves between the two
        module(x)
    first, second = (
        checkpoint(lambda x: module(x).quantized.square(), x, use_reentrant=reentrant) for x in xs
    )
    return (first + second).sum()


REFUSING = {
    "EMA": quantizer,
    "cosine, rotation": lambda: quantizer(metric="cosine", estimator="rotation"),
    "residual": lambda: vq.nn.ResidualVQ(quantizer, levels=2),
    "several codes": lambda: quantizer(assign=vq.TopK(2)),
    "drawn codes": lambda: quantizer(update=vq.EMA(every=3), assign=vq.Sample()),
    "drawn levels": lambda: vq.nn.ResidualVQ(
        lambda: quantizer(update=vq.EMA(every=3)), levels=2, dropout=vq.LevelDropout()
    ),
}


@pytest.mark.parametrize("make", REFUSING.values(), ids=REFUSING)
def test_a_recompute_with_a_moved_codebook_is_refused(make: Callable[[], nn.Module]) -> None:
    message = r"got [12] moves or draws since; .* need EMA\(every=...\) of that number"
    with pytest.raises(RuntimeError, match=message):
        _two_forwards(make()).backward()


def test_a_codebook_that_moves_on_leaving_training_mode_is_noticed_too() -> None:
    module = quantizer(init="normal")
    (x,) = batches(1)
    out = checkpoint(lambda x: module(x).quantized, x.requires_grad_(), use_reentrant=False)
    module.eval()
    with pytest.raises(RuntimeError, match="got 1 moves or draws since"):
        out.sum().backward()


@pytest.mark.parametrize(("dead", "levels"), [(False, 0), (True, 0), (True, 2)])
def test_a_revival_between_forward_and_recompute_is_refused(dead: bool, levels: int) -> None:
    """A Gradient codebook moves by itself only then."""
    init = torch.cat([x[:8] for x in batches(2)])  # every code is chosen in turn
    init[3] += 100.0 if dead else 0.0
    revive = vq.Revive(threshold=1e-9, age=8, every=3)  # at the second of the two forwards

    def make() -> vq.nn.VectorQuantizer:
        return quantizer(update=vq.Gradient(), init=init, revive=revive)

    loss = _two_forwards(make() if not levels else vq.nn.ResidualVQ(make, levels))
    if dead:
        with pytest.raises(RuntimeError, match=r"with Gradient\(...\) revive=None"):
            loss.backward()
    else:
        loss.backward()


@pytest.mark.parametrize("update", [vq.EMA(every=4), vq.Gradient(), None], ids=str)
def test_a_codebook_that_has_not_moved_is_not_refused(
    update: vq.EMA | vq.Gradient | None,
) -> None:
    plain, module = quantizer(update=update), quantizer(update=update)
    _two_forwards(module).backward()
    for x in batches(2) * 2:
        plain(x)
    assert_same_state(module, snapshot(plain))


def test_tensors_that_are_kept_elsewhere_are_no_recompute() -> None:
    """Other hooks return other tensors, too, with what was saved in them."""
    module = quantizer(init="normal")
    x, y = (value.requires_grad_() for value in batches(2))
    with torch.autograd.graph.saved_tensors_hooks(torch.clone, torch.clone):
        out = module(x)
    module(y)
    out.quantized.sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))
