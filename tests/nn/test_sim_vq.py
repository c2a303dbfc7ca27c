"""SimVQ: the step of vector_quantize with transformed codes, whose gradient is the transform's."""

from __future__ import annotations

from typing import Any

import cases
import oracle
import pytest
import torch
from budget import assert_within_budget
from torch import Tensor, nn

import vqkernels as vq

N, K, D = 200, 50, 6


def _module(**options: Any) -> vq.nn.SimVQ:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return vq.nn.SimVQ(K, D, **options)


def _x() -> Tensor:
    return torch.randn(N, D, generator=cases.generator(1))


def _dense(x: Tensor, module: vq.nn.SimVQ, indices: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """Loss, and the gradients of the loss and a sum of ``quantized``, in plain torch."""
    x = x.to(dtype).requires_grad_()
    weight = module.transform.weight.detach().to(dtype).requires_grad_()
    q = (module.frozen.to(dtype) @ weight.T)[indices]
    loss = 0.1 * (x - q.detach()).square().mean() + 2.0 * (x.detach() - q).square().mean()
    total = ((x + (q - x).detach()) * torch.linspace(-1, 1, N * D).view(N, D)).sum() + loss
    return [loss.detach(), *torch.autograd.grad(total, [x, weight])]


def test_loss_and_gradients_are_those_of_the_dense_form() -> None:
    module, x = _module(commitment_weight=0.1, codebook_weight=2.0), _x().requires_grad_()
    out = module(x)
    truth, _ = oracle.nearest_code(x.detach(), module.codebook.detach(), "l2")
    assert out.indices.tolist() == truth.tolist()
    exact = _dense(x.detach(), module, out.indices, torch.float64)
    eager = _dense(x.detach(), module, out.indices, torch.float32)
    total = (out.quantized * torch.linspace(-1, 1, N * D).view(N, D)).sum() + out.loss
    got = [out.loss.detach(), *torch.autograd.grad(total, [x, module.transform.weight])]
    for found, wanted, plain in zip(got, exact, eager, strict=True):
        # The gradient of the matrix is a sum of 50 products.
        assert_within_budget(found, wanted, plain, intermediate=8 * float(wanted.abs().max()))


@pytest.mark.parametrize("estimator", cases.ESTIMATORS)
def test_it_is_vector_quantize_with_the_transformed_codes(estimator: str) -> None:
    module, x = _module(estimator=estimator), _x()
    results = []
    for step in (
        module,
        lambda x: vq.vector_quantize(x, module.codebook, estimator=estimator),
    ):
        leaf = x.clone().requires_grad_()
        out = step(leaf)
        total = out.quantized.sin().sum() + out.loss
        grads = torch.autograd.grad(total, [leaf, *module.parameters()])
        results.append([out.quantized, out.indices, out.loss, *out.usage, *grads])
    for mine, wanted in zip(*results, strict=True):
        assert torch.equal(mine, wanted)


def test_training_moves_every_code_and_no_frozen_one() -> None:
    module = _module()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    frozen, codes = module.frozen.clone(), module.codebook.detach().clone()
    out = module(_x()[:3])  # three codes at most
    out.loss.backward()
    optimizer.step()
    assert torch.equal(module.frozen, frozen)
    assert (module.codebook != codes).any(dim=1).all()


def test_it_learns_codes_that_fit() -> None:
    module, x = _module(), _x() + 3.0
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    errors = []
    for _ in range(40):
        out = module(x)
        errors.append(float(out.usage.mse))
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
    assert errors[-1] < 0.2 * errors[0]


def test_frozen_codes_of_another_width_and_a_module_of_ones_own() -> None:
    frozen = torch.randn(K, 3, generator=cases.generator(2))
    transform = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, D))
    module = _module(frozen=frozen, transform=transform)
    assert module.frozen is not frozen
    assert torch.equal(module.codebook, transform(frozen))
    assert sorted(module.state_dict()) == [
        "frozen",
        *(f"transform.{number}.{name}" for number in (0, 2) for name in ("bias", "weight")),
    ]
    module(_x()).loss.backward()
    assert all(parameter.grad is not None for parameter in transform.parameters())
    assert _module(frozen=frozen).transform.weight.shape == (D, 3)
    assert list(_module(transform=nn.Identity()).parameters()) == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"transform": torch.sin}, TypeError, "transform must be a module or None"),
        ({"frozen": torch.zeros(K - 1, D)}, ValueError, r"frozen must have shape \(50, 6\)"),
        ({"frozen": torch.full((K, D), torch.nan)}, ValueError, "frozen must be finite"),
        ({"commitment_weight": -1.0}, ValueError, "commitment_weight must be at least 0"),
        ({"codebook_weight": "1"}, TypeError, "codebook_weight must be a number"),
        ({"estimator": "none"}, ValueError, "estimator must be one of"),
    ],
)
def test_bad_options_are_named(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        _module(**options)


def test_a_transform_to_another_width_is_named() -> None:
    module = _module(transform=nn.Linear(D, D + 1))
    with pytest.raises(ValueError, match=r"transform's result must have shape \(50, 6\)"):
        module(_x())
