"""The moving-average update against its closed form over several steps."""

from __future__ import annotations

import cases
import pytest
import textbook
import torch
from budget import assert_within_budget
from torch import Tensor

import vqkernels as vq


def _batches(steps: int, k: int, d: int) -> list[tuple[Tensor, Tensor]]:
    g = cases.generator(30)
    return [
        (
            torch.randint(0, 9, (k,), generator=g),
            torch.randn(k, d, generator=g),
        )
        for _ in range(steps)
    ]


@pytest.mark.parametrize("epsilon", [0.0, 1e-5, 0.5])
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_several_steps_follow_the_formula(decay: float, epsilon: float) -> None:
    """s_t = g^t s_0 + (1-g) sum_j g^(t-j) n_j, and the same for m: no recursion."""
    steps, (_, codebook) = 5, cases.batch()
    k, d = codebook.shape
    size, total = torch.ones(k), codebook.clone()
    batches = _batches(steps, k, d)
    if decay == 0.0 and epsilon == 0.0:  # an empty code would have mass 0 / 0
        batches = [(counts + 1, sums) for counts, sums in batches]
    for counts, sums in batches:
        vq.ema_update_(codebook, size, total, counts, sums, decay=decay, epsilon=epsilon)

    weights = [(1 - decay) * decay ** (steps - 1 - step) for step in range(steps)]
    start = cases.batch()[1].double()
    pairs = list(zip(weights, batches, strict=True))
    exact_size = decay**steps * torch.ones(k).double() + sum(w * n for w, (n, _) in pairs)
    exact_sum = decay**steps * start + sum(w * m.double() for w, (_, m) in pairs)
    mass = exact_size.sum()
    smoothed = (exact_size + epsilon) / (mass + k * epsilon) * mass
    exact = exact_sum / smoothed[:, None]

    eager = torch.ones(k), start.float()
    for counts, sums in batches:
        moved, *eager = textbook.ema(*eager, counts, sums, decay, epsilon)
    assert_within_budget(codebook, exact, moved)
    assert_within_budget(size, exact_size, eager[0])
    assert_within_budget(total, exact_sum, eager[1])


def test_the_smoothed_size_is_not_written_back() -> None:
    _, codebook = cases.batch()
    size, total = torch.ones(11), codebook.clone()
    counts, sums = torch.full((11,), 4), torch.randn(11, 6)
    vq.ema_update_(codebook, size, total, counts, sums, decay=0.5, epsilon=3.0)
    assert size.tolist() == [2.5] * 11


def test_the_moving_average_reaches_the_mean_of_a_constant_stream() -> None:
    codebook = torch.zeros(2, 1)
    size, total = torch.ones(2), codebook.clone()
    counts, sums = torch.tensor([10, 30]), torch.tensor([[20.0], [-90.0]])
    for _ in range(400):
        vq.ema_update_(codebook, size, total, counts, sums, decay=0.9, epsilon=1e-5)
    eps = torch.finfo(torch.float32).eps
    # 400 steps of decay 0.9 leave 1e-18 of the start; the smoothing moves a code by epsilon/10.
    assert codebook.flatten().tolist() == pytest.approx([2.0, -3.0], rel=1e-5 / 10 + 40 * eps)


def test_a_code_without_any_mass_keeps_its_place() -> None:
    codebook, (counts, sums) = cases.batch()[1], _batches(1, 11, 6)[0]
    counts[3], sums[3] = 0, 0.0
    before = codebook.clone()
    vq.ema_update_(codebook, torch.ones(11), before.clone(), counts, sums, decay=0.0, epsilon=0.0)
    assert torch.equal(codebook[3], before[3])
    assert codebook[counts > 0].isfinite().all()
