"""GumbelVQ: drawn codes with the gradient of a softmax, the likeliest ones in evaluation."""

from __future__ import annotations

import copy
from typing import Any

import cases
import numpy as np
import oracle
import pytest
import torch
from budget import assert_within_budget
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import vqkernels as vq

N, K, D = 120, 32, 6
_LOGIT = 32.0  # as in test_ibq.py


def _module(**options: Any) -> vq.nn.GumbelVQ:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return vq.nn.GumbelVQ(K, D, **options)


def _x(n: int = N) -> Tensor:
    return 2.0 * torch.randn(n, D, generator=cases.generator(1))


def _dense(module: vq.nn.GumbelVQ, x: Tensor, kl_weight: float, dtype: torch.dtype) -> Any:
    """Logits and divergence in plain torch, and the leaves."""
    x = x.detach().to(dtype).requires_grad_()
    names = ("to_logits.weight", "to_logits.bias", "codebook")
    parameters = dict(module.named_parameters())
    leaves = [x, *(parameters[name].detach().to(dtype).requires_grad_() for name in names)]
    logits = leaves[0] @ leaves[1].T + leaves[2]
    q = logits.softmax(dim=1)
    loss = kl_weight * (q * (q * K + 1e-10).log()).sum(dim=1).mean()
    return logits, loss, leaves


def _own(module: vq.nn.GumbelVQ, x: Tensor) -> list[Tensor]:
    return [x, module.to_logits.weight, module.to_logits.bias, module.codebook]


def test_codes_are_drawn_with_the_probability_of_their_logits() -> None:
    """Chi-square of 40000 draws for each of four vectors."""
    count, module = 40_000, _module(temperature=0.1)
    x = _x(4)
    with torch.no_grad():
        p = module.to_logits(x).double().softmax(dim=1)
    drawn = module(x.repeat(count, 1)).indices.reshape(count, 4)
    for column, expected in zip(drawn.T, count * p, strict=True):
        statistic = float(((column.bincount(minlength=K) - expected) ** 2 / expected).sum())
        assert statistic < (K - 1) + 5.0 * (2.0 * (K - 1)) ** 0.5


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_loss_and_gradients_are_those_of_the_dense_form(mode: str, temperature: float) -> None:
    """In training with the noise that the soft draw of an equal module shows."""
    module = _module(temperature=temperature, kl_weight=0.1).train(mode == "train")
    x = _x().requires_grad_()
    noise = _noise_of(copy.deepcopy(module), x.detach()) if mode == "train" else torch.zeros(N, K)
    out = module(x)
    upstream = torch.linspace(-1, 1, N * D).view(N, D)
    results = []
    for dtype in (torch.float64, torch.float32):
        logits, loss, leaves = _dense(module, x, 0.1, dtype)
        y = ((logits + noise.to(dtype)) / temperature).softmax(dim=1)
        hard = F.one_hot(out.indices, K).to(dtype)
        total = (((hard - y.detach() + y) @ leaves[3]) * upstream).sum() + loss
        results.append([loss.detach(), *torch.autograd.grad(total, leaves)])
        assert torch.equal((logits + noise.to(dtype)).argmax(dim=1), out.indices)
    assert torch.equal(out.quantized, module.codebook[out.indices])
    total = (out.quantized * upstream).sum() + out.loss
    got = [out.loss.detach(), *torch.autograd.grad(total, _own(module, x))]
    for found, exact, eager in zip(got, *results, strict=True):
        assert_within_budget(found, exact, eager, _LOGIT * max(1.0, float(exact.abs().max())))


def _noise_of(module: vq.nn.GumbelVQ, x: Tensor) -> Tensor:
    """Its next noise, less a constant per row: log y - logits, with codes that show y itself."""
    logits = module.to_logits(x).detach().double()
    shown = vq.nn.GumbelVQ(K, D, hard=False, seed=module.seed)
    shown.load_state_dict(module.state_dict())
    shown.set_temperature(1.0)
    columns = []
    for start in range(0, K, D):  # the codes have D channels: D columns of y at a time
        with torch.no_grad():
            shown.codebook.copy_(F.pad(torch.eye(K)[:, start : start + D], (0, D))[:, :D])
        shown.draws.copy_(module.draws)
        columns.append(shown(x).quantized.detach())
    y = torch.cat(columns, dim=1)[:, :K].double()
    return y.log() - logits


def test_a_soft_draw_is_the_mixture_and_differentiable_in_the_codes() -> None:
    module, x = _module(hard=False, kl_weight=0.0, temperature=0.7), _x().requires_grad_()
    noise = _noise_of(copy.deepcopy(module), x.detach())
    out = module(x)
    upstream = torch.linspace(-1, 1, N * D).view(N, D)
    results = []
    for dtype in (torch.float64, torch.float32):
        logits, _, leaves = _dense(module, x, 0.0, dtype)
        y = ((logits + noise.to(dtype)) / 0.7).softmax(dim=1)
        mixture = y @ leaves[3]
        grads = torch.autograd.grad(mixture, leaves, upstream.to(dtype))
        results.append([mixture.detach(), *grads])
    grads = torch.autograd.grad(out.quantized, _own(module, x), upstream)
    for found, exact, eager in zip([out.quantized.detach(), *grads], *results, strict=True):
        assert_within_budget(found, exact, eager, _LOGIT * max(1.0, float(exact.abs().max())))
    assert torch.equal(module.eval()(x).quantized, module.codebook[module.encode(x)])


def test_evaluation_takes_the_exact_argmax(backend: str) -> None:
    module = _module(backend=backend).eval()
    x = torch.cat([_x(), torch.zeros(1, D)])
    weight, bias = (value.detach().double().numpy() for value in module.to_logits.parameters())
    rows = np.concatenate([x.double().numpy(), np.ones((N + 1, 1))], axis=1)
    scores = oracle.pair_scores(rows, np.concatenate([weight, bias[:, None]], axis=1), "cosine")
    assert module(x).indices.tolist() == scores.argmax(axis=1).tolist()
    assert module.encode(x).tolist() == scores.argmax(axis=1).tolist()


def test_every_training_forward_draws_anew_and_reads_no_generator() -> None:
    module, x = _module(), _x()
    generator = torch.get_rng_state()
    first, second = module(x), module(x)
    assert torch.equal(torch.get_rng_state(), generator)
    assert (first.indices != second.indices).float().mean() > 0.5
    other = _module(seed=1)(x)
    assert (first.indices != other.indices).float().mean() > 0.5
    assert torch.equal(first.indices, _module()(x).indices)
    assert int(module.draws) == 2
    module.eval()
    assert torch.equal(module(x).indices, module(x).indices)
    assert int(module.draws) == 2


def test_a_recompute_after_another_draw_is_refused() -> None:
    module = _module()

    def region(x: Tensor) -> Tensor:
        return module(x).quantized

    x = _x().requires_grad_()
    out = checkpoint(region, x, use_reentrant=False)
    module(_x())
    with pytest.raises(RuntimeError, match="a recompute must see"):
        out.sum().backward()


def test_the_divergence_is_zero_for_equal_logits_and_log_k_for_certain_ones() -> None:
    module, x = _module(kl_weight=1.0), _x()
    with torch.no_grad():
        for parameter in module.to_logits.parameters():
            parameter.zero_()
        assert abs(module(x).loss.item()) < 1e-6
        module.to_logits.bias[3] = 1e4
    out = module(x)
    assert abs(out.loss.item() - float(torch.tensor(K).log())) < 1e-6
    assert (out.indices == 3).all()


def test_a_temperature_is_state_and_no_reason_to_compile_again() -> None:
    module, x = _module(hard=False), _x()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    hot = compiled(x).quantized
    module.set_temperature(0.05)
    module.draws.zero_()
    with torch.compiler.set_stance("fail_on_recompile"):
        cold = compiled(x).quantized
    assert not torch.equal(hot, cold)
    other = _module(hard=False)
    other.load_state_dict(module.state_dict())
    assert float(other.temperature) == pytest.approx(0.05)


def test_lowering_the_temperature_after_a_forward_leaves_its_gradient() -> None:
    grads = []
    for later in (1.0, 0.01):
        module, x = _module(), _x().requires_grad_()
        out = module(x)
        module.set_temperature(later)
        grads.append(torch.autograd.grad(out.quantized.sum(), x)[0])
    assert torch.equal(*grads)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"temperature": 0.0}, ValueError, "temperature must be above 0"),
        ({"kl_weight": -1.0}, ValueError, "kl_weight must be at least 0"),
        ({"hard": 1}, TypeError, "hard must be a bool"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
    ],
)
def test_bad_options_are_named(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        _module(**options)
