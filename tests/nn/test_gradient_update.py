"""The codebook as a Parameter, and the frozen codebook."""

from __future__ import annotations

import pytest
import textbook
import torch
from budget import assert_within_budget
from modules import K, assert_same_state, batches, quantizer, snapshot, train
from torch import nn

import vqkernels as vq


@pytest.mark.parametrize("estimator", ["straight_through", "rotation"])
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_its_gradient_is_the_textbooks(metric: str, estimator: str, backend: str) -> None:
    init = batches(1, K, seed=1)[0]
    options = {"metric": metric, "estimator": estimator, "commitment_weight": 0.3}
    module = quantizer(update=vq.Gradient(0.7), init=init, backend=backend, **options)
    (x,) = batches(1)
    out = module(x)
    out.loss.backward()

    def gradient(dtype: torch.dtype) -> torch.Tensor:
        codes = init.to(dtype).requires_grad_()
        expected = textbook.quantize(
            x.to(dtype), codes, codebook_weight=0.7, indices=out.indices, **options
        )
        return torch.autograd.grad(expected.loss, codes)[0]

    exact, eager = gradient(torch.float64), gradient(torch.float32)
    assert_within_budget(module.codebook.grad, exact, eager)


def test_the_optimizer_moves_the_codebook_and_lowers_the_loss() -> None:
    module = quantizer(update=vq.Gradient(), init="normal")
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    (x,) = batches(1)
    losses = [float(out.loss.detach()) for out in train(module, [x] * 60, optimizer)]
    assert losses[-1] < losses[0] / 2


def test_only_a_gradient_codebook_is_a_parameter() -> None:
    assert isinstance(quantizer(update=vq.Gradient()).codebook, nn.Parameter)
    for update in (vq.EMA(), None):
        module = quantizer(update=update)
        assert not list(module.parameters())
        assert "codebook" in dict(module.named_buffers())


def test_decode_is_differentiable_in_a_gradient_codebook() -> None:
    module = quantizer(update=vq.Gradient(), init="normal")
    indices = torch.tensor([3, 3, -1, 5])
    module.decode(indices).sum().backward()
    expected = torch.zeros(K)
    expected[3], expected[5] = 2.0, 1.0
    assert torch.equal(module.codebook.grad, expected[:, None].expand(-1, 6))


def test_a_second_forward_before_the_backward_keeps_the_first_graph() -> None:
    """Revival writes to the Parameter in between; saved tensors must not include it."""
    module = quantizer(update=vq.Gradient(), metric="cosine")
    first, second = (module(x.requires_grad_()) for x in batches(2))
    (first.loss + second.loss).backward()
    assert module.codebook.grad.isfinite().all()


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_a_frozen_codebook_never_moves(metric: str) -> None:
    module = quantizer(update=None, metric=metric)
    xs = batches(5)
    module(xs[0])  # k-means still fills it
    before = snapshot(module)
    outs = train(module, xs[1:])
    module.flush()
    module.eval()
    assert_same_state(module, before)
    assert outs[0].loss.requires_grad
    assert torch.equal(outs[0].loss, 0.25 * outs[0].usage.mse)


def test_a_frozen_codebook_keeps_no_statistics() -> None:
    names = set(quantizer(update=None).state_dict())
    assert names == {"codebook", "pending_steps", "initialised", "clock"}
    assert "embed_sum" not in quantizer(update=vq.Gradient()).state_dict()
