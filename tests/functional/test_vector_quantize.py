"""The public step against the textbook quantizer, values and gradients."""

from __future__ import annotations

import cases
import pytest
import textbook
import torch
from budget import assert_within_budget
from torch import Tensor

import vqkernels as vq

WEIGHTS = {"commitment_weight": 0.4, "codebook_weight": 0.9}


@pytest.mark.parametrize("masked", [False, True], ids=["all rows", "masked"])
@pytest.mark.parametrize("estimator", cases.ESTIMATORS)
@pytest.mark.parametrize("metric", cases.METRICS)
@pytest.mark.parametrize("name", ["gaussian", "photo 2x2x3 PCA 8", "photo unit norm"])
def test_agrees_with_the_textbook(
    name: str, metric: str, estimator: str, masked: bool, backend: str
) -> None:
    x, codebook = cases.search(name)
    mask = torch.arange(len(x)) % 4 != 1 if masked else None
    upstream = torch.randn(x.shape, generator=cases.generator(60))
    options = {"metric": metric, "estimator": estimator, "mask": mask, **WEIGHTS}

    def gradients(out: vq.VQOutput | textbook.Quantized, *leaves: Tensor) -> tuple[Tensor, ...]:
        total = (out.quantized * upstream.to(out.quantized.dtype)).sum() - 1.3 * out.loss
        return torch.autograd.grad(total, leaves)

    leaves = x.clone().requires_grad_(), codebook.clone().requires_grad_()
    out = vq.vector_quantize(*leaves, backend=backend, **options)
    found = out.indices.clamp(min=0)
    truth_leaves = [leaf.detach().double().requires_grad_() for leaf in leaves]
    truth = textbook.quantize(*truth_leaves, indices=found, **options)
    eager_leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    eager = textbook.quantize(*eager_leaves, indices=found, **options)

    assert torch.equal(out.indices, truth.indices)
    assert torch.equal(out.usage.counts, truth.counts.long())
    assert_within_budget(out.loss, truth.loss, eager.loss)
    assert_within_budget(out.usage.mse, truth.mse, eager.mse)
    assert_within_budget(out.quantized, truth.quantized, eager.quantized)
    for got, exact, plain in zip(
        gradients(out, *leaves),
        gradients(truth, *truth_leaves),
        gradients(eager, *eager_leaves),
        strict=True,
    ):
        assert_within_budget(got, exact, plain)


@pytest.mark.parametrize("metric", cases.METRICS)
@pytest.mark.parametrize("name", ["gaussian", "photo 2x2x3 PCA 8", "shifted by 1000"])
def test_the_textbook_finds_no_better_code(name: str, metric: str, backend: str) -> None:
    """Independent of our F: where float64 cannot decide, the regret is within its rounding."""
    x, codebook = (value.double() for value in cases.search(name))
    found = vq.nearest_code(*cases.search(name), metric=metric, backend=backend).indices
    scores = textbook.distances(x, codebook, metric)
    regret = scores.gather(1, found[:, None])[:, 0] - scores.amin(dim=1)
    # cosine: our codes are rounded to float32 once, which moves a score by |x| eps/2 a code.
    eps = torch.finfo(torch.float32 if metric == "cosine" else torch.float64).eps
    allowed = eps * x.shape[1] * (x.norm(dim=1) + x.square().sum(dim=1))
    assert (regret <= allowed).all()


@pytest.mark.parametrize("estimator", cases.ESTIMATORS)
@pytest.mark.parametrize("metric", cases.METRICS)
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
def test_quantized_is_the_code_rounded_to_the_dtype_of_x(
    dtype: torch.dtype, metric: str, estimator: str, backend: str
) -> None:
    x, codebook = cases.search("photo 2x2x3")
    out = vq.vector_quantize(
        x.to(dtype).requires_grad_(), codebook, metric=metric, estimator=estimator, backend=backend
    )
    if metric == "cosine":
        codebook = torch.ops.vqkernels.normalize_codes(codebook)[0]
    assert out.quantized.dtype == dtype
    assert torch.equal(out.quantized, codebook[out.indices].to(dtype))


@pytest.mark.parametrize("estimator", cases.ESTIMATORS)
@pytest.mark.parametrize("metric", cases.METRICS)
def test_gradcheck_of_the_straight_through_surrogate(metric: str, estimator: str) -> None:
    """The loss is a smooth function of x and codebook while the assignment holds: float64."""
    x, codebook = (value.double().requires_grad_() for value in cases.gaussian(6, 4, 3))

    def loss(x: Tensor, codebook: Tensor) -> Tensor:
        return vq.vector_quantize(
            x, codebook, metric=metric, estimator=estimator, commitment_weight=0.0
        ).loss

    def commitment(x: Tensor) -> Tensor:
        return vq.vector_quantize(
            x, codebook.detach(), metric=metric, estimator=estimator, codebook_weight=0.0
        ).loss

    # Each term has one differentiable side; finite differences see the other one move too.
    assert torch.autograd.gradcheck(lambda codes: loss(x.detach(), codes), codebook)
    if metric == "l2":  # for cosine see the textbook: the codebook's rounding breaks differences
        assert torch.autograd.gradcheck(commitment, x)


@pytest.mark.parametrize("layout", ["NCHW", "channels last", "permuted", "transposed matrix"])
def test_results_and_gradients_keep_the_memory_format_of_x(layout: str, backend: str) -> None:
    rows, codebook = cases.batch()
    x, channel_dim = cases.LAYOUTS[layout](rows)
    out = vq.vector_quantize(
        x.requires_grad_(), codebook, channel_dim=channel_dim, backend=backend
    )
    (gradient,) = torch.autograd.grad(out.quantized.sum() + out.loss, x)
    assert out.quantized.stride() == x.stride()
    assert gradient.stride() == x.stride()


def test_masked_rows_pass_through_with_an_identity_gradient(backend: str) -> None:
    x, codebook = cases.batch()
    mask = torch.arange(24) % 2 == 0
    for metric in cases.METRICS:
        for estimator in cases.ESTIMATORS:
            leaf = x.clone().requires_grad_()
            out = vq.vector_quantize(
                leaf, codebook, mask=mask, metric=metric, estimator=estimator, backend=backend
            )
            upstream = torch.randn(x.shape, generator=cases.generator(61))
            out.quantized.backward(upstream)
            assert torch.equal(out.quantized[~mask], x[~mask])
            assert torch.equal(leaf.grad[~mask], upstream[~mask])
            assert (out.indices[~mask] == -1).all()
            assert out.usage.counts.sum() == mask.sum()


def test_what_lies_under_the_mask_changes_no_other_result(backend: str) -> None:
    x, codebook = cases.batch()
    mask = torch.arange(24) % 2 == 0
    other = torch.where(mask[:, None], x, torch.tensor(torch.nan))
    first, second = (
        vq.vector_quantize(value, codebook, mask=mask, backend=backend) for value in (x, other)
    )
    assert torch.equal(first.loss, second.loss)
    assert torch.equal(first.indices, second.indices)
    assert torch.equal(first.quantized[mask], second.quantized[mask])


def test_a_fully_masked_batch_has_zero_loss_and_gradient(backend: str) -> None:
    x, codebook = (value.requires_grad_() for value in cases.batch())
    mask = torch.zeros(24, dtype=torch.bool)
    out = vq.vector_quantize(x, codebook, mask=mask, backend=backend)
    out.loss.backward()
    assert out.loss == 0
    assert not x.grad.any()
    assert not codebook.grad.any()
    assert out.usage.perplexity == 0


def test_only_what_needs_a_gradient_is_asked_for(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vqkernels.ops import vector_quantize as module

    asked = []

    def spy(*arguments: object) -> tuple[Tensor, Tensor]:
        asked.append(arguments[-3:-1])
        return original(*arguments)

    original = module.vq_backward
    monkeypatch.setattr(module, "vq_backward", spy)
    for need_x, need_codebook in ((True, False), (False, True), (True, True)):
        x, codebook = cases.batch()
        x.requires_grad_(need_x)
        codebook.requires_grad_(need_codebook)
        vq.vector_quantize(x, codebook, backend=backend).loss.backward()
        assert asked.pop() == (need_x, need_codebook)


@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
def test_changing_quantized_in_place_never_gives_a_wrong_gradient(
    dtype: torch.dtype, backend: str
) -> None:
    """In float32 the backward needs the same memory: PyTorch refuses then."""

    def gradient(inplace: bool) -> Tensor:
        x, codebook = cases.batch()
        x = x.to(dtype).requires_grad_()
        out = vq.vector_quantize(x, codebook, backend=backend)
        activated = torch.relu_(out.quantized) if inplace else out.quantized.relu()
        (activated.sum() + out.loss).backward()
        return x.grad

    if dtype == torch.float32:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            gradient(inplace=True)
    else:
        assert torch.equal(gradient(inplace=True), gradient(inplace=False))
