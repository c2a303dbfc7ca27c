"""The fused backward against float64 autograd on the textbook quantizer."""

from __future__ import annotations

import cases
import pytest
import textbook
import torch
from budget import assert_within_budget
from torch import Tensor

from vqkernels import ops

COMMITMENT, CODEBOOK = 0.3, 0.7
GRAD_LOSS = torch.tensor(-1.7)


def _saved(x: Tensor, codes: Tensor, mask: Tensor | None, metric: str, channel: int) -> tuple:
    """What the forward keeps, from the reference: a bad forward must not hide a bad backward."""
    return ops.vq_forward(x, codes, None, mask, metric, channel, False, "reference")[:2]


def _backward(
    grad_quantized: Tensor | None,
    grad_loss: Tensor | None,
    x: Tensor,
    saved: tuple[Tensor, Tensor],
    k: int,
    backend: str,
    metric: str = "l2",
    estimator: str = "straight_through",
    channel_dim: int = 1,
    need: tuple[bool, bool] = (True, True),
) -> tuple[Tensor, Tensor]:
    return ops.vq_backward(
        grad_quantized,
        grad_loss,
        x,
        *saved,
        k,
        metric,
        estimator,
        COMMITMENT,
        CODEBOOK,
        channel_dim,
        *need,
        backend,
    )


def _textbook_gradients(
    x: Tensor,
    codes: Tensor,
    indices: Tensor,
    upstream: Tensor,
    dtype: torch.dtype,
    metric: str,
    estimator: str,
) -> tuple[Tensor, Tensor]:
    """Gradients of the rows of x and of the (already normalised) codes, computed in ``dtype``."""
    leaf, codes = x.clone().requires_grad_(), codes.clone().to(dtype).requires_grad_()
    source = leaf.to(dtype)
    if metric == "cosine":
        # The codes are given as the op gets them: normalised. Only x is normalised here.
        source = torch.nn.functional.normalize(source, dim=1, eps=1e-12)
    keep = indices >= 0
    out = textbook.quantize(
        source,
        codes,
        commitment_weight=COMMITMENT,
        codebook_weight=CODEBOOK,
        estimator=estimator,
        mask=keep,
        indices=indices,
    )
    quantized = torch.where(keep[:, None], out.quantized, leaf.to(dtype))
    total = (quantized * upstream.to(dtype)).sum() + GRAD_LOSS.to(dtype) * out.loss
    return torch.autograd.grad(total, (leaf, codes))


@pytest.mark.parametrize("estimator", cases.ESTIMATORS)
@pytest.mark.parametrize("metric", cases.METRICS)
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_gradients_are_within_the_error_budget(
    layout: str, dtype: torch.dtype, metric: str, estimator: str, backend: str
) -> None:
    rows, codes = cases.batch()
    x, channel = cases.LAYOUTS[layout](rows.to(dtype))
    channel %= x.ndim
    if metric == "cosine":
        codes = ops.normalize_codes(codes)[0]
    upstream = torch.randn(x.shape, generator=cases.generator(21)).to(dtype)
    positions = x.movedim(channel, -1).shape[:-1]
    for mask in (None, torch.arange(positions.numel()).reshape(positions) % 3 != 1):
        saved = _saved(x, codes, mask, metric, channel)
        grad_x, grad_codes = _backward(
            upstream, GRAD_LOSS, x, saved, len(codes), backend, metric, estimator, channel
        )
        assert grad_x.dtype == dtype
        assert grad_codes.dtype == torch.float32
        matrices = cases.as_matrix(x, channel), codes, saved[1].reshape(-1)
        grad_rows = cases.as_matrix(upstream, channel)
        exact, eager = (
            _textbook_gradients(
                matrices[0].to(leaf), *matrices[1:], grad_rows, compute, metric, estimator
            )
            for leaf, compute in ((torch.float64, torch.float64), (dtype, torch.float32))
        )
        assert_within_budget(cases.as_matrix(grad_x, channel), exact[0], eager[0])
        assert_within_budget(grad_codes, exact[1], eager[1])
        if mask is not None:
            masked = ~mask.reshape(-1)
            assert torch.equal(cases.as_matrix(grad_x, channel)[masked], grad_rows[masked])


_GRADIENT_LAYOUTS = {
    "scalar expanded": lambda g: g[:1, :1, :1, :1].expand(g.shape),
    "one image expanded": lambda g: g[:1].expand(g.shape),
    "channels last": lambda g: g.contiguous(memory_format=torch.channels_last),
    "transposed": lambda g: g.transpose(2, 3).contiguous().transpose(2, 3),
    "sliced": lambda g: torch.stack([g, g * torch.nan], dim=-1)[..., 0],
}


@pytest.mark.parametrize("estimator", cases.ESTIMATORS)
@pytest.mark.parametrize("metric", cases.METRICS)
@pytest.mark.parametrize("strides", _GRADIENT_LAYOUTS)
def test_gradients_are_read_through_any_strides(
    strides: str, metric: str, estimator: str, backend: str
) -> None:
    rows, codes = cases.batch()
    x, channel = cases.LAYOUTS["NCHW"](rows)
    saved = _saved(x, codes, None, metric, channel)
    upstream = _GRADIENT_LAYOUTS[strides](torch.randn(x.shape, generator=cases.generator(22)))
    options = (x, saved, len(codes), backend, metric, estimator)
    got = _backward(upstream, GRAD_LOSS, *options)
    expected = _backward(
        upstream.clone(memory_format=torch.contiguous_format), GRAD_LOSS, *options
    )
    assert torch.equal(got[0], expected[0])
    assert torch.equal(got[1], expected[1])


def test_only_requested_gradients_are_computed(backend: str) -> None:
    x, codes = cases.batch()
    saved = _saved(x, codes, None, "l2", 1)
    both = _backward(x, GRAD_LOSS, x, saved, 11, backend)
    for need in ((True, False), (False, True)):
        got = _backward(x, GRAD_LOSS, x, saved, 11, backend, need=need)
        for wanted, gradient, full in zip(need, got, both, strict=True):
            assert torch.equal(gradient, full) if wanted else gradient.numel() == 0


@pytest.mark.parametrize("estimator", cases.ESTIMATORS)
@pytest.mark.parametrize("metric", cases.METRICS)
def test_a_missing_gradient_is_a_zero_one(metric: str, estimator: str, backend: str) -> None:
    x, codes = cases.batch()
    saved = _saved(x, codes, None, metric, 1)
    options = (x, saved, 11, backend, metric, estimator)
    for got, expected in (
        (_backward(None, GRAD_LOSS, *options), _backward(x * 0.0, GRAD_LOSS, *options)),
        (_backward(x, None, *options), _backward(x, torch.tensor(0.0), *options)),
    ):
        assert torch.equal(got[0], expected[0])
        assert torch.equal(got[1], expected[1])


def test_straight_through_passes_the_gradient_bit_for_bit(backend: str) -> None:
    x, codes = cases.batch()
    upstream = torch.randn(x.shape, generator=cases.generator(23))
    grad_x, _ = _backward(upstream, None, x, _saved(x, codes, None, "l2", 1), 11, backend)
    assert torch.equal(grad_x, upstream)


def test_zero_vectors_have_a_finite_gradient(backend: str) -> None:
    x, codes = cases.batch()
    x[:4], codes[2] = 0.0, 0.0
    upstream = torch.ones_like(x)
    for metric in cases.METRICS:
        saved = _saved(x, codes, None, metric, 1)
        for estimator in cases.ESTIMATORS:
            grad_x, grad_codes = _backward(
                upstream, GRAD_LOSS, x, saved, 11, backend, metric, estimator
            )
            assert grad_x.isfinite().all()
            assert grad_codes.isfinite().all()
            if metric == "cosine":
                assert not grad_x[:4].any()  # a zero vector has no direction


def test_rotation_turns_a_vector_opposite_to_its_code(backend: str) -> None:
    """x/|x| = -q/|q|: the rotation plane is undefined, the gradient must not be."""
    x = torch.tensor([[2.0, 0.0]])
    saved = torch.tensor([[-1.0, 0.0]]), torch.tensor([0])
    grad_x, _ = _backward(torch.ones(1, 2), None, x, saved, 1, backend, estimator="rotation")
    assert grad_x.isfinite().all()
    assert grad_x[0, 0] == -0.5  # (|q|/|x|) times the reflected component


@pytest.mark.parametrize("layout", ["no rows", "no pixels"])
def test_an_empty_batch_gives_zero_code_gradients(layout: str, backend: str) -> None:
    rows, codes = cases.batch()
    x, channel = cases.LAYOUTS[layout](rows)
    grad_x, grad_codes = _backward(
        x, GRAD_LOSS, x, _saved(x, codes, None, "l2", channel), 11, backend, channel_dim=channel
    )
    assert grad_x.shape == x.shape
    assert grad_codes.shape == codes.shape
    assert not grad_codes.any()
