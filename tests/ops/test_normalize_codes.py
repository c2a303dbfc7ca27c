"""The codebook of the cosine metric."""

from __future__ import annotations

import cases
import oracle
import pytest
import torch
from budget import assert_within_budget

from vqkernels import ops


@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
@pytest.mark.parametrize("name", cases.SEARCH)
def test_values_are_the_definition(name: str, dtype: torch.dtype) -> None:
    _, codebook = cases.search(name, dtype)
    unit, norms = ops.normalize_codes(codebook)
    expected = torch.from_numpy(oracle.normalised(codebook.double().numpy()))
    assert unit.dtype == torch.float32
    assert torch.equal(unit.nan_to_num(7.0), expected.nan_to_num(7.0))
    assert norms.shape == (len(codebook), 1)


def test_a_zero_code_stays_zero_and_gets_no_gradient() -> None:
    codebook = cases.batch()[1]
    codebook[3] = 0.0
    codebook.requires_grad_()
    unit = ops.NormalizeCodes.apply(codebook)
    unit.sum().backward()
    assert not unit[3].any()
    assert not codebook.grad[3].any()
    assert codebook.grad.isfinite().all()


@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
def test_the_gradient_is_within_the_error_budget(dtype: torch.dtype) -> None:
    codebook = cases.batch()[1].to(dtype)
    upstream = torch.randn(11, 6, generator=cases.generator(1))

    def gradient(leaf: torch.dtype, compute: torch.dtype) -> torch.Tensor:
        codes = codebook.to(leaf).requires_grad_()
        unit = torch.nn.functional.normalize(codes.to(compute), dim=1)
        return torch.autograd.grad((unit * upstream.to(compute)).sum(), codes)[0]

    codes = codebook.clone().requires_grad_()
    (ops.NormalizeCodes.apply(codes) * upstream).sum().backward()
    exact = gradient(torch.float64, torch.float64)
    assert_within_budget(codes.grad, exact, gradient(dtype, torch.float32))
