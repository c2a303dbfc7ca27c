"""IBQ against its dense form: one_hot - sg(p) + p, and the losses of the paper."""

from __future__ import annotations

from typing import Any

import cases
import numpy as np
import oracle
import pytest
import torch
from budget import assert_within_budget
from torch import Tensor
from torch.nn import functional as F

import vqkernels as vq

N, K, D = 90, 40, 5
# Size of the largest logits over the temperature: one rounding of such a one is as many
# roundings of its probability.
_LOGIT = 64.0


def _module(**options: Any) -> vq.nn.IBQ:
    return vq.nn.IBQ(K, D, init=torch.randn(K, D, generator=cases.generator(0)), **options)


def _x(seed: int = 1) -> Tensor:
    return torch.randn(N, D, generator=cases.generator(seed))


def _dense(
    x: Tensor, codes: Tensor, indices: Tensor, entropy: vq.Entropy | None, dtype: torch.dtype
) -> list[Tensor]:
    """Loss and gradients of the published step: double quantization loss and entropy loss."""
    x, codes = (value.detach().to(dtype).requires_grad_() for value in (x, codes))
    logits = x @ codes.T
    p, hard = logits.softmax(dim=1), F.one_hot(indices, K).to(dtype)
    quantized, chosen = (hard - p.detach() + p) @ codes, hard @ codes
    loss = (quantized - x).square().mean()
    loss = loss + (chosen.detach() - x).square().mean()
    loss = loss + 0.25 * (chosen - x.detach()).square().mean()
    if entropy is not None:
        logs = (logits / entropy.temperature).log_softmax(dim=1)
        mean = logs.exp().mean(dim=0)
        per_row, usage = -(logs.exp() * logs).sum(dim=1).mean(), -(mean * mean.log()).sum()
        loss = loss + entropy.weight * (per_row - entropy.diversity * usage)
    total = (quantized * torch.linspace(-1, 1, N * D).view(N, D)).sum() + loss
    return [loss.detach(), *torch.autograd.grad(total, [x, codes])]


@pytest.mark.parametrize("entropy", [None, vq.Entropy(0.05, 0.2), vq.Entropy(2.0, 1.0, 0.5)])
def test_loss_and_gradients_are_those_of_the_dense_form(entropy: vq.Entropy | None) -> None:
    module, x = _module(entropy=entropy), _x().requires_grad_()
    out = module(x)
    exact = _dense(x, module.codebook, out.indices, entropy, torch.float64)
    eager = _dense(x, module.codebook, out.indices, entropy, torch.float32)
    total = (out.quantized * torch.linspace(-1, 1, N * D).view(N, D)).sum() + out.loss
    got = [out.loss.detach(), *torch.autograd.grad(total, [x, module.codebook])]
    for found, wanted, plain in zip(got, exact, eager, strict=True):
        assert_within_budget(found, wanted, plain, _LOGIT * float(wanted.abs().max()))


@pytest.mark.parametrize("d", [8, 64, 256])
def test_the_gradient_reaches_all_codes_at_any_width(d: int) -> None:
    g = cases.generator(2)
    x, codes = torch.randn(70, d, generator=g), torch.randn(33, d, generator=g) * d**-0.5
    module = vq.nn.IBQ(33, d, init=codes, soft_weight=0, commitment_weight=0, codebook_weight=0)
    out = module(x)
    upstream = torch.randn(70, d, generator=g)
    (got,) = torch.autograd.grad(out.quantized, module.codebook, upstream)
    found = []
    for dtype in (torch.float64, torch.float32):
        table = codes.to(dtype).requires_grad_()
        p = (x.to(dtype) @ table.T).softmax(dim=1)
        one_hot = F.one_hot(out.indices, 33).to(dtype) - p.detach() + p
        found.append(torch.autograd.grad(one_hot @ table, table, upstream.to(dtype))[0])
    assert (got != 0).any(dim=1).all()
    assert_within_budget(got, *found, intermediate=_LOGIT * float(found[0].abs().max()))


@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
def test_indices_are_the_largest_float64_products_of_codes_of_any_length(
    dtype: torch.dtype, backend: str
) -> None:
    g = cases.generator(3)
    x = torch.randn(500, 7, generator=g).to(dtype)
    codes = torch.randn(301, 7, generator=g) * torch.rand(301, 1, generator=g).exp2() + 2.0
    codes[200] = codes[100] = codes[17]  # ties
    codes[5] = torch.nan
    module = vq.nn.IBQ(301, 7, init=codes.nan_to_num(), backend=backend)
    with torch.no_grad():
        module.codebook.copy_(codes)
    scores = oracle.pair_scores(x.double().numpy(), codes.double().numpy(), "cosine")
    truth = np.where(np.isnan(scores), -np.inf, scores).argmax(axis=1)
    assert module.encode(x).tolist() == truth.tolist()
    out = module(x)
    assert out.indices.tolist() == truth.tolist()
    assert torch.equal(out.quantized, codes[out.indices].to(dtype))


def test_a_code_that_is_not_finite_has_no_gradient_and_gives_none() -> None:
    module, x = _module(), _x()
    with torch.no_grad():
        module.codebook[4, 2] = torch.nan
    out = module(x)
    (out.quantized.square().sum() + out.loss).backward()
    assert module.codebook.grad.isfinite().all()
    assert (module.codebook.grad[4] == 0).all()


def test_loss_and_entropy_are_there_in_training_and_the_first_in_evaluation() -> None:
    x, option = _x(), vq.Entropy(3.0)
    plain, more = _module(), _module(entropy=option)
    assert torch.equal(plain.eval()(x).loss, more.eval()(x).loss)
    assert plain.train()(x).loss != more.train()(x).loss


@pytest.mark.parametrize("name", ["soft_weight", "commitment_weight", "codebook_weight"])
def test_each_weight_is_the_factor_of_its_term(name: str) -> None:
    """By value the terms are one and the same; by gradient each is its own."""
    off = dict.fromkeys(("soft_weight", "commitment_weight", "codebook_weight"), 0.0)
    module, x = _module(**{**off, name: 3.0}), _x().requires_grad_()
    out = module(x)
    torch.testing.assert_close(out.loss, 3.0 * out.usage.mse)
    to_x, to_codes = torch.autograd.grad(out.loss, [x, module.codebook], allow_unused=True)
    chosen = out.indices.unique()
    others = torch.ones(K, dtype=torch.bool).index_fill(0, chosen, False)
    assert bool((to_x != 0).any()) == (name != "codebook_weight")
    assert bool((to_codes[chosen] != 0).any()) == (name != "commitment_weight")
    assert bool((to_codes[others] != 0).any()) == (name == "soft_weight")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"soft_weight": -1.0}, ValueError, "soft_weight must be at least 0"),
        ({"entropy": 0.1}, TypeError, r"entropy must be Entropy\(\.\.\.\) or None"),
        ({"init": "kmeans"}, ValueError, "init must be one of 'normal', 'uniform'"),
    ],
)
def test_bad_options_are_named(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        vq.nn.IBQ(K, D, **options)
