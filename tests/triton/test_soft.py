"""What only the Triton form of the soft assignment can get wrong: it cuts its sums into pieces."""

from __future__ import annotations

import cases
import pytest
import torch
from backends import interpreted
from budget import assert_within_budget
from torch import Tensor

from vqkernels import ops

pytestmark = pytest.mark.skipif(not interpreted(), reason="needs TRITON_INTERPRET=1")

# Rows, codes, channels: one tile on either side and many on the other; two slices of channels.
_SHAPES = ((60, 500, 6), (500, 60, 6), (70, 130, 150))


def _eager(x: Tensor, codes: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    centre = codes.mean(dim=0)
    logits = -torch.cdist(x - centre, codes - centre).square() / temperature
    p = logits.softmax(dim=1)
    return logits.logsumexp(dim=1), (p * logits).sum(dim=1), p.sum(dim=0)


@pytest.mark.parametrize("shape", _SHAPES, ids=str)
def test_pieces_add_up_to_the_float64_values_and_gradients(shape: tuple[int, ...]) -> None:
    temperature = 0.5 * shape[2]
    x, codes = cases.gaussian(*shape)
    results = []
    for dtype in (None, torch.float64, torch.float32):
        leaves = [v.clone().to(dtype or torch.float32).requires_grad_() for v in (x, codes)]
        if dtype is None:
            out = ops.SoftAssign.apply(*leaves, None, temperature, 1, True, "triton")
        else:
            out = _eager(*leaves, temperature)
        g = cases.generator(7)
        total = sum((v * torch.randn(v.shape, generator=g)).sum() for v in out)
        results.append([*out, *torch.autograd.grad(total, leaves)])
    for got, exact, eager in zip(*results, strict=True):
        assert_within_budget(got.float(), exact, eager)


@pytest.mark.parametrize("temperature", [1e-4, 1e-2, 1.0, 1e4])
def test_probabilities_sum_to_one_at_any_temperature(temperature: float) -> None:
    """Scores of 10^5 are exact to 10^-2 in float32; what is summed is relative to the largest."""
    x, codes = cases.gaussian(70, 130, 8)
    for rows in (x, x + 30.0):
        *_, usage = ops.soft_assign(rows, codes, None, temperature, 1, True, "triton")
        # Two roundings for each exponential, and one of the result.
        assert abs(float(usage.double().sum()) - 70) <= 4 * torch.finfo(torch.float32).eps * 70


def test_a_draw_of_nearly_one_takes_the_last_code_that_is_possible() -> None:
    """The sum of all probabilities may be less than that by its rounding."""
    from vqkernels.backends.triton.sample_codes import sample_codes

    x, codes = cases.gaussian(70, 130, 8)
    codes[100:] = torch.nan
    log_sums, *_ = ops.soft_assign(x, codes, None, 1e4, 1, False, "triton")
    draws = torch.full((70,), 1.0 - 2.0**-33, dtype=torch.float64)
    assert torch.equal(sample_codes(x, codes, log_sums, draws, 1e4, 1), torch.full((70,), 99))
    assert torch.equal(sample_codes(x, codes, log_sums, draws * 0, 1e4, 1), torch.zeros(70).long())
