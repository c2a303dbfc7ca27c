"""bit_assign against the softmax over all codes, which it never forms."""

from __future__ import annotations

import pytest
import torch
from budget import assert_within_budget
from cases import generator
from torch import Tensor

from vqkernels import ops

SHAPES = [(1, 1, 1), (7, 1, 2), (50, 2, 5), (40, 1, 10), (3, 4, 3)]
SCALES = [0.3, 4.0, 400.0]
FLOORS = [0.0, 1e-5, 1e-2]


def _input(shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    g = generator(31)
    return torch.randn(shape, generator=g), torch.rand(shape[0], generator=g) < 0.7


def _upstream(entropy: Tensor, mass: Tensor) -> tuple[Tensor, Tensor]:
    g = generator(32)
    return tuple(
        torch.randn(value.shape, generator=g, dtype=torch.float64).to(value.dtype)
        for value in (entropy, mass)
    )


def _dense(
    x: Tensor, mask: Tensor | None, scale: float, floor: float, dtype: torch.dtype
) -> list[Tensor]:
    """Entropy, mass and gradient, from the (N, G, K) probabilities."""
    x = x.to(dtype).requires_grad_()
    bits = x.shape[2]
    codes = (torch.arange(2**bits)[:, None] >> torch.arange(bits - 1, -1, -1) & 1) * 2 - 1
    logs = torch.einsum("ngb,kb->ngk", x * (scale / 2), codes.to(dtype)).log_softmax(dim=-1)
    p = logs.exp()
    logs = p.clamp(min=floor).log() if floor > 0 else logs
    kept = torch.ones(len(x), dtype=torch.bool) if mask is None else mask
    entropy = torch.where(kept[:, None], -(p * logs).sum(dim=-1), 0.0)
    mass = (p * kept[:, None, None]).sum(dim=0)
    gradient = torch.autograd.grad((entropy, mass), x, _upstream(entropy, mass))
    return [entropy.detach(), mass.detach(), *gradient]


def _ours(x: Tensor, mask: Tensor | None, scale: float, floor: float) -> list[Tensor]:
    x = x.clone().requires_grad_()
    out = ops.BitAssign.apply(x, mask, scale, floor)
    gradient = torch.autograd.grad(out, x, _upstream(*out))
    return [*(value.detach() for value in out), *gradient]


@pytest.mark.parametrize("floor", FLOORS)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients_are_those_of_the_dense_softmax(
    shape: tuple[int, int, int], scale: float, floor: float
) -> None:
    x, mask = _input(shape)
    for kept in (None, mask):
        got = _ours(x, kept, scale, floor)
        exact = _dense(x, kept, scale, floor, torch.float64)
        eager = _dense(x, kept, scale, floor, torch.float32)
        assert got[0].dtype == got[1].dtype == torch.float64
        assert got[2].dtype == x.dtype
        # Where rows are sure the float64 softmax loses digits: its entropy is p log p of a p
        # that is 1, the gradient a difference of scale times a few units. 2^-29 of a float32 eps
        # is one of float64.
        for value, truth, plain, size in zip(got, exact, eager, (1, 0, 8 * scale), strict=True):
            assert_within_budget(value.float(), truth, plain, size * 2.0**-29)


def test_many_rows_are_the_sum_of_their_blocks() -> None:
    """5000 rows of 2^8 numbers are five blocks, the last one not full."""
    g = generator(33)
    x = torch.randn(5000, 1, 16, generator=g)
    mask = torch.rand(5000, generator=g) < 0.9
    whole = ops.bit_assign(x, mask, 4.0, 0.0)
    parts = [ops.bit_assign(x[i::5], mask[i::5], 4.0, 0.0) for i in range(5)]
    for i, (entropy, _) in enumerate(parts):
        assert torch.equal(whole[0][i::5], entropy)
    torch.testing.assert_close(whole[1], sum(mass for _, mass in parts), rtol=1e-12, atol=1e-15)


def test_rows_that_do_not_count_are_not_read() -> None:
    x, mask = _input((50, 2, 5))
    spoilt = torch.where(mask[:, None, None], x, torch.nan)
    for value, expected in zip(
        _ours(spoilt, mask, 4.0, 1e-5), _ours(x, mask, 4.0, 1e-5), strict=True
    ):
        assert torch.equal(value, expected)


def test_one_gradient_alone() -> None:
    x, mask = _input((50, 2, 5))
    arguments = (x, mask, 4.0, 1e-5)
    upstream = _upstream(*ops.bit_assign(*arguments))
    both = ops.bit_assign_backward(*upstream, *arguments)
    entropy = ops.bit_assign_backward(upstream[0], None, *arguments)
    mass = ops.bit_assign_backward(None, upstream[1], *arguments)
    torch.testing.assert_close(entropy + mass, both)
    assert entropy.any()
    assert mass.any()


@pytest.mark.parametrize("floor", FLOORS[:2])
def test_neither_autocast_nor_the_thread_count_changes_a_bit(floor: float) -> None:
    x = torch.randn(1000, 1, 12, generator=generator(34))
    expected = _ours(x, None, 4.0, floor)
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with torch.autocast("cpu", torch.bfloat16):
                got = _ours(x, None, 4.0, floor)
            for value, wanted in zip(got, expected, strict=True):
                # In float32, as every caller rounds them: a product of matrices may add the
                # rows of a block in another order on another number of threads.
                assert torch.equal(value.float(), wanted.float())
    finally:
        torch.set_num_threads(2)
