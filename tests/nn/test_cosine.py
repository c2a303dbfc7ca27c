"""The cosine metric through the module."""

from __future__ import annotations

import pytest
import textbook
import torch
from budget import assert_within_budget
from modules import UPDATES, batches, quantizer, train

import vqkernels as vq


@pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES)
def test_the_length_of_x_changes_no_index(update: vq.EMA | vq.Gradient | None) -> None:
    module = quantizer(update=update, metric="cosine")
    train(module, batches(3))
    module.eval()
    (x,) = batches(1, seed=73)
    scale = 2.0 ** torch.randint(-9, 9, (64, 1))
    assert torch.equal(module.encode(x), module.encode(x * scale))


def test_an_ema_codebook_stays_normalised() -> None:
    module = quantizer(metric="cosine")
    for x in batches(5):
        module(x)
        norms = module.codebook.double().norm(dim=1)
        assert ((norms - 1).abs() <= torch.finfo(torch.float32).eps).all()


def test_statistics_add_directions() -> None:
    module = quantizer(metric="cosine", init="normal", revive=None)
    (x,) = batches(1)
    indices = module(x).indices
    one_hot = torch.nn.functional.one_hot(indices, 16)
    exact = one_hot.T.double() @ torch.nn.functional.normalize(x.double(), dim=1)
    eager = one_hot.T.float() @ torch.nn.functional.normalize(x, dim=1)
    assert_within_budget(module.pending_sums, exact, eager)


def test_a_zero_vector_gets_code_0_and_no_gradient() -> None:
    module = quantizer(metric="cosine", init="normal")
    x = batches(1)[0]
    x[:5] = 0.0
    x.requires_grad_()
    out = module(x)
    (out.quantized.sum() + out.loss).backward()
    assert out.indices[:5].tolist() == [0] * 5
    assert not x.grad[:5].any()
    assert out.loss.isfinite()


def test_the_gradient_has_no_radial_part() -> None:
    """quantized depends on the direction of x only."""
    module = quantizer(metric="cosine", init="normal")
    x = batches(1)[0].requires_grad_()
    out = module(x)
    (out.quantized.square().sum() * 3 + out.loss).backward()
    radial = (x.grad.double() * x.detach().double()).sum(dim=1)
    lengths = x.grad.double().norm(dim=1) * x.detach().double().norm(dim=1)
    assert (radial.abs() <= torch.finfo(torch.float32).eps * lengths).all()


def test_usage_mse_is_that_of_the_directions() -> None:
    module = quantizer(metric="cosine", init="normal")
    (x,) = batches(1)
    out = module(x)
    exact, eager = (
        textbook.quantize(x.to(dtype), module.codebook.to(dtype), metric="cosine").mse
        for dtype in (torch.float64, torch.float32)
    )
    assert_within_budget(out.usage.mse, exact, eager)
