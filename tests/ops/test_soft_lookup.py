"""soft_lookup, its gradients and draw_code against dense float64."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cases
import numpy as np
import pytest
import torch
from budget import assert_within_budget
from torch import Tensor
from torch.nn import functional as F

from vqkernels import ops

N, K, C, D = 83, 29, 6, 4
# Size of the largest logits: one rounding of such a one is as many roundings of its probability.
_LOGIT = 32.0
CLOCK, SEED = torch.tensor(7), 3


@pytest.fixture(params=["one block", "many blocks"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """83 rows in blocks of 16, or all in one."""
    if request.param == "many blocks":
        monkeypatch.setattr("vqkernels.backends.reference._dot_blocks._PAIRS_ON_CPU", 1)
    return


def _arguments(seed: int = 0) -> dict[str, Tensor]:
    g = cases.generator(seed)
    shapes = {"x": (N, C), "weight": (K, C), "bias": (K,), "values": (K, D)}
    return {name: torch.randn(shape, generator=g) for name, shape in shapes.items()}


def _mix(value: np.ndarray) -> np.ndarray:
    value = value.astype(np.uint32)
    value = (value ^ (value >> np.uint32(16))) * np.uint32(0x7FEB352D)
    value = (value ^ (value >> np.uint32(15))) * np.uint32(0x846CA68B)
    return value ^ (value >> np.uint32(16))


def _noise() -> Tensor:
    """Its definition in numpy: a hash of the sum of a hash of the row and one of the code."""

    def key(clock: int, count: int) -> np.ndarray:
        keyed = _mix(_mix(np.array([SEED])) + np.uint32(clock))
        return _mix(keyed + np.arange(count, dtype=np.uint32))

    bits = _mix(key(int(CLOCK), N)[:, None] + key(0, K)[None, :]).astype(np.float64)
    return torch.from_numpy(-np.log(-np.log1p(-(bits + 0.5) * 2.0**-32)))


def _dense(
    given: dict[str, Tensor], mask: Tensor, temperature: float | None, noisy: bool, dtype: Any
) -> tuple[list[Tensor], list[Tensor]]:
    """What the op returns, and the gradients of a fixed function of it, in plain torch."""
    leaves = {name: value.to(dtype).requires_grad_() for name, value in given.items()}
    logits = leaves["x"] @ leaves["weight"].T + leaves["bias"]
    if noisy:
        logits = logits + _noise().to(dtype)
    logs = (logits / (temperature or 1.0)).log_softmax(dim=1)
    p = torch.where(mask[:, None], logs.exp(), 0.0)
    entropy = -(p * logs).sum(dim=1)
    return _results([p @ leaves["values"], entropy, p.sum(dim=0)], leaves)


def _results(outs: list[Tensor], leaves: dict[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    total = sum((out * torch.linspace(-1, 2, out.numel()).view_as(out)).sum() for out in outs)
    return [out.detach() for out in outs], list(torch.autograd.grad(total, [*leaves.values()]))


@pytest.mark.parametrize("temperature", [None, 0.3])
@pytest.mark.parametrize("noisy", [False, True])
def test_values_and_gradients_are_those_of_the_dense_form(
    temperature: float | None, noisy: bool, blocks: None
) -> None:
    given, mask = _arguments(), torch.arange(N) % 5 != 2
    exact = _dense(given, mask, temperature, noisy, torch.float64)
    eager = _dense(given, mask, temperature, noisy, torch.float32)
    leaves = {name: value.clone().requires_grad_() for name, value in given.items()}
    scale = None if temperature is None else torch.tensor(temperature)
    outs = ops.SoftLookup.apply(
        *leaves.values(), mask, scale, CLOCK if noisy else None, SEED, True, None
    )
    got = _results(list(outs), leaves)
    for found, wanted, plain in zip(
        [*got[0], *got[1]], [*exact[0], *exact[1]], [*eager[0], *eager[1]], strict=True
    ):
        assert_within_budget(found, wanted, plain, _LOGIT * float(wanted.abs().max()))


def test_float64_stays_float64(blocks: None) -> None:
    given, mask = _arguments(), torch.ones(N, dtype=torch.bool)
    exact = _dense(given, mask, None, False, torch.float64)
    leaves = {name: value.double().requires_grad_() for name, value in given.items()}
    outs = ops.SoftLookup.apply(*leaves.values(), None, None, None, 0, True, None)
    for found, wanted in zip(_results(list(outs), leaves), exact, strict=True):
        torch.testing.assert_close(found, wanted)


def test_a_row_or_a_code_that_is_not_finite_takes_no_part(blocks: None) -> None:
    given = _arguments()
    x, weight, bias, values = given.values()
    x[5, 1], x[40, 0], weight[3, 2], bias[9] = torch.nan, torch.inf, torch.nan, -torch.inf
    rows, codes = torch.ones(N, dtype=torch.bool), torch.ones(K, dtype=torch.bool)
    rows[[5, 40]], codes[[3, 9]] = False, False
    leaves = [value.clone().requires_grad_() for value in given.values()]
    kept = [given["x"][rows], weight[codes], bias[codes], values[codes]]
    fewer = [value.clone().requires_grad_() for value in kept]
    outs = ops.SoftLookup.apply(*leaves, None, None, None, 0, True, None)
    wanted = ops.SoftLookup.apply(*fewer, None, None, None, 0, True, None)
    for out, want, kept_in in zip(outs, wanted, (rows, rows, codes), strict=True):
        torch.testing.assert_close(out[kept_in], want)
        assert (out[~kept_in] == 0).all()
    grads, fewer_grads = (
        torch.autograd.grad(result[0].sin().sum() + result[1].sum() + result[2].square().sum(), of)
        for result, of in ((outs, leaves), (wanted, fewer))
    )
    for grad, want, kept_in in zip(grads, fewer_grads, (rows, codes, codes, codes), strict=True):
        torch.testing.assert_close(grad[kept_in], want, rtol=1e-5, atol=1e-5)
        assert (grad[~kept_in] == 0).all()


def test_without_a_finite_code_everything_is_zero() -> None:
    x, weight, bias, values = _arguments().values()
    weight[:] = torch.nan
    for out in ops.soft_lookup(x, weight, bias, values, None, None, None, 0, True):
        assert (out == 0).all()
    assert (ops.draw_code(x, weight, bias, None, CLOCK, SEED) == 0).all()


def test_a_draw_is_the_largest_of_the_perturbed_logits(blocks: None) -> None:
    x, weight, bias, _ = _arguments().values()
    mask = torch.arange(N) % 4 != 0
    x[6, 0] = torch.nan
    logits = (x.double() @ weight.double().T + bias).nan_to_num() + _noise()
    drawn = ops.draw_code(x, weight, bias, mask, CLOCK, SEED)
    taken = mask & x.isfinite().all(dim=1)
    assert torch.equal(drawn, torch.where(taken, logits.argmax(dim=1), 0))


def test_rows_draw_independently_and_with_their_probability() -> None:
    """Chi-square of 200000 draws of one row, and of pairs of neighbouring rows, 64 cells each."""
    count, logits = 200_000, torch.linspace(-1.0, 1.0, 8)
    x = torch.ones(count, 1)
    drawn = ops.draw_code(x, logits[:, None], None, None, CLOCK, SEED)
    p = logits.double().softmax(dim=0)
    single = drawn.bincount(minlength=8)
    pairs = (drawn[::2] * 8 + drawn[1::2]).bincount(minlength=64)
    for found, expected in (
        (single, count * p),
        (pairs, count / 2 * (p[:, None] * p).flatten()),
    ):
        statistic = float(((found - expected) ** 2 / expected).sum())
        freedom = len(expected) - 1
        assert statistic < freedom + 5.0 * (2.0 * freedom) ** 0.5


def test_the_hard_value_has_the_gradient_of_the_dense_straight_through_form() -> None:
    """one_hot - sg(p) + p, whose value is the chosen row bit for bit."""
    x, weight, bias, values = (value.requires_grad_() for value in _arguments().values())
    indices = torch.arange(N) % K
    indices[4] = -1
    chosen = values.detach()[indices]
    upstream = torch.randn(N, D, generator=cases.generator(1))
    out = ops.IndexGradient.apply(
        *(x, weight, bias, values, chosen, indices, torch.tensor(0.5), None, 0, 1, None)
    )
    assert torch.equal(out, chosen)
    got = torch.autograd.grad(out, (x, weight, bias, values), upstream)
    found = []
    for dtype in (torch.float64, torch.float32):
        leaves = [v.detach().to(dtype).requires_grad_() for v in (x, weight, bias, values)]
        p = ((leaves[0] @ leaves[1].T + leaves[2]) / 0.5).softmax(dim=1)
        one_hot = F.one_hot(indices.clamp(min=0), K).to(dtype)
        mixed = ((one_hot - p.detach() + p) @ leaves[3]) * (indices >= 0)[:, None]
        found.append(torch.autograd.grad(mixed, leaves, upstream.to(dtype)))
    for one, exact, eager in zip(got, *found, strict=True):
        assert_within_budget(one, exact, eager, _LOGIT * float(exact.abs().max()))


def test_runs_change_no_bit() -> None:
    """At one thread count: the products are torch's, whose bits follow it."""
    g = cases.generator(5)
    x, weight = torch.randn(3000, 24, generator=g), torch.randn(700, 24, generator=g)
    results = []
    for _ in range(3):
        leaves = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
        outs = ops.SoftLookup.apply(*leaves, None, weight, None, None, None, 0, True, None)
        grads = torch.autograd.grad(outs, leaves, [torch.ones_like(out) for out in outs])
        results.append([*(out.detach() for out in outs), *grads])
    for other in results[1:]:
        for first, again in zip(results[0], other, strict=True):
            assert torch.equal(first, again)
