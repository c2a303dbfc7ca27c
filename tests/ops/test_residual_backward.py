"""The residual backward against float64 autograd on the textbook composition."""

from __future__ import annotations

import cases
import oracle
import pytest
import textbook
import torch
from budget import assert_within_budget
from torch import Tensor

from vqkernels import ops

LEVELS, COMMITMENT, CODEBOOK = 3, 0.3, 0.7
GRAD_LOSS = torch.tensor(-1.7)


def _backward(
    grad_quantized: Tensor | None,
    grad_loss: Tensor | None,
    x: Tensor,
    codebooks: Tensor,
    backend: str,
    mask: Tensor | None = None,
    estimator: str = "straight_through",
    channel_dim: int = 1,
    need: tuple[bool, bool] = (True, True),
    kept: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """From what the reference keeps: a bad forward must not hide a bad backward."""
    quantized, *_, remainder, code_remainders = ops.residual(
        x, codebooks, None, LEVELS, mask, kept, channel_dim, False, *need, "reference"
    )
    turned = (x, quantized) if estimator == "rotation" else (None, None)
    return ops.residual_backward(
        grad_quantized,
        grad_loss,
        *turned,
        remainder,
        code_remainders,
        mask,
        x.numel() // x.shape[channel_dim],
        len(codebooks) != LEVELS,
        estimator,
        COMMITMENT,
        CODEBOOK,
        channel_dim,
        x.dtype,
        *need,
        backend,
    )


def _textbook_gradients(
    x: Tensor,
    codebooks: Tensor,
    indices: Tensor,
    mask: Tensor | None,
    upstream: Tensor,
    dtype: torch.dtype,
    estimator: str,
    kept: Tensor | None,
) -> tuple[Tensor, Tensor]:
    leaf, books = x.clone().requires_grad_(), codebooks.clone().to(dtype).requires_grad_()
    out = textbook.residual_quantize(
        leaf.to(dtype),
        list(books.expand(LEVELS, -1, -1)),
        indices=indices,
        commitment_weight=COMMITMENT,
        codebook_weight=CODEBOOK,
        estimator=estimator,
        mask=mask,
        kept=kept,
    )
    total = (out.quantized * upstream.to(dtype)).sum() + GRAD_LOSS.to(dtype) * out.loss
    return torch.autograd.grad(total, (leaf, books))


def _assert_within_budget(
    x: Tensor,
    channel: int,
    codebooks: Tensor,
    mask: Tensor | None,
    estimator: str,
    backend: str,
    kept: Tensor | None = None,
) -> None:
    upstream = torch.randn(x.shape, generator=cases.generator(21)).to(x.dtype)
    options = (codebooks, backend, mask, estimator, channel)
    got = _backward(upstream, GRAD_LOSS, x, *options, kept=kept)
    assert got[0].dtype == x.dtype
    assert got[1].dtype == torch.float32
    matrix, rows = (cases.as_matrix(value, channel) for value in (x, upstream))
    keep = None if mask is None else mask.reshape(-1)
    last = None if kept is None else kept.reshape(-1)
    indices, _ = oracle.residual(matrix, codebooks.expand(LEVELS, -1, -1))
    exact, eager = (
        _textbook_gradients(
            matrix.to(leaf), codebooks, indices, keep, rows, compute, estimator, last
        )
        for leaf, compute in ((torch.float64, torch.float64), (x.dtype, torch.float32))
    )
    assert_within_budget(cases.as_matrix(got[0], channel), exact[0], eager[0])
    assert_within_budget(got[1], exact[1], eager[1])
    if keep is not None:
        assert torch.equal(cases.as_matrix(got[0], channel)[~keep], rows[~keep])


@pytest.mark.parametrize("estimator", cases.ESTIMATORS)
@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_gradients_are_within_the_error_budget(
    layout: str, dtype: torch.dtype, shared: bool, estimator: str, backend: str
) -> None:
    rows, codebook = cases.batch()
    x, channel = cases.LAYOUTS[layout](rows.to(dtype))
    channel %= x.ndim
    books = codebook[None] if shared else cases.codebooks(codebook, LEVELS)
    positions = x.movedim(channel, -1).shape[:-1]
    for mask in (None, torch.arange(positions.numel()).reshape(positions) % 3 != 1):
        _assert_within_budget(x, channel, books, mask, estimator, backend)


@pytest.mark.parametrize("estimator", cases.ESTIMATORS)
@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
def test_rows_that_are_kept_for_fewer_levels_are_within_the_error_budget(
    shared: bool, estimator: str, backend: str
) -> None:
    rows, codebook = cases.batch()
    x, channel = cases.LAYOUTS["NCHW"](rows)
    books = codebook[None] if shared else cases.codebooks(codebook, LEVELS)
    kept = (torch.arange(24) * 5 % LEVELS + 1).reshape(2, 3, 4)
    for mask in (None, torch.arange(24).reshape(2, 3, 4) % 3 != 1):
        _assert_within_budget(x, channel, books, mask, estimator, backend, kept)


@pytest.mark.parametrize("estimator", cases.ESTIMATORS)
def test_a_row_without_a_level_passes_the_gradient(estimator: str, backend: str) -> None:
    x, codebook = cases.batch()
    upstream = torch.randn(x.shape, generator=cases.generator(23))
    kept = torch.arange(24) % (LEVELS + 1)
    options = (x, cases.codebooks(codebook, LEVELS), backend, None, estimator)
    grad, _ = _backward(upstream, GRAD_LOSS, *options, kept=kept)
    assert torch.equal(grad[kept == 0], upstream[kept == 0])


@pytest.mark.parametrize("estimator", cases.ESTIMATORS)
@pytest.mark.parametrize("name", ["gaussian", "shifted by 1000", "photo 2x2x3 PCA 8"])
def test_gradients_keep_their_digits_where_codes_cancel(
    name: str, estimator: str, backend: str
) -> None:
    x, codebook = cases.search(name)
    books = torch.stack([codebook, codebook - codebook.mean(dim=0), codebook * 0.0])
    _assert_within_budget(x, 1, books, None, estimator, backend)


@pytest.mark.parametrize("estimator", cases.ESTIMATORS)
def test_a_missing_gradient_is_a_zero_one(estimator: str, backend: str) -> None:
    x, codebook = cases.batch()
    options = (x, cases.codebooks(codebook, LEVELS), backend, None, estimator)
    for got, expected in (
        (_backward(None, GRAD_LOSS, *options), _backward(x * 0.0, GRAD_LOSS, *options)),
        (_backward(x, None, *options), _backward(x, torch.tensor(0.0), *options)),
    ):
        assert torch.equal(got[0], expected[0])
        assert torch.equal(got[1], expected[1])


def test_without_a_loss_a_nonfinite_row_reaches_no_gradient(backend: str) -> None:
    x, codebook = cases.batch()
    x[3] = torch.nan
    grads = _backward(
        torch.ones_like(x), None, x, cases.codebooks(codebook, LEVELS), backend, None
    )
    assert torch.equal(grads[0], torch.ones_like(x))
    assert not grads[1].any()


def test_straight_through_passes_the_gradient_bit_for_bit(backend: str) -> None:
    x, codebook = cases.batch()
    upstream = torch.randn(x.shape, generator=cases.generator(23))
    books = cases.codebooks(codebook, LEVELS)
    assert torch.equal(_backward(upstream, None, x, books, backend)[0], upstream)


def test_only_requested_gradients_are_computed(backend: str) -> None:
    x, codebook = cases.batch()
    books = cases.codebooks(codebook, LEVELS)
    both = _backward(x, GRAD_LOSS, x, books, backend)
    for need in ((True, False), (False, True)):
        got = _backward(x, GRAD_LOSS, x, books, backend, need=need)
        for wanted, gradient, full in zip(need, got, both, strict=True):
            assert torch.equal(gradient, full) if wanted else gradient.numel() == 0


@pytest.mark.parametrize("estimator", cases.ESTIMATORS)
def test_gradients_are_read_through_any_strides(estimator: str, backend: str) -> None:
    rows, codebook = cases.batch()
    x, channel = cases.LAYOUTS["NCHW"](rows)
    books = cases.codebooks(codebook, LEVELS)
    plain = torch.randn(x.shape, generator=cases.generator(22))
    options = (GRAD_LOSS, x, books, backend, None, estimator, channel)
    for upstream in (
        plain[:1].expand(x.shape),
        plain.contiguous(memory_format=torch.channels_last),
        torch.stack([plain, plain * torch.nan], dim=-1)[..., 0],
    ):
        got, expected = _backward(upstream, *options), _backward(upstream.clone(), *options)
        assert torch.equal(got[0], expected[0])
        assert torch.equal(got[1], expected[1])
