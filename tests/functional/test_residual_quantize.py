"""The public residual quantizer against the textbook, and its errors."""

from __future__ import annotations

import re
from typing import Any

import cases
import oracle
import pytest
import textbook
import torch
from backends import available
from budget import assert_within_budget
from torch import Tensor

import vqkernels as vq

LEVELS = 4
WEIGHTS = {"commitment_weight": 0.4, "codebook_weight": 0.9}


@pytest.mark.parametrize("masked", [False, True], ids=["all rows", "masked"])
@pytest.mark.parametrize("estimator", cases.ESTIMATORS)
@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize("name", ["gaussian", "photo 2x2x3 PCA 8", "photo unit norm"])
def test_agrees_with_the_textbook(
    name: str, shared: bool, estimator: str, masked: bool, backend: str
) -> None:
    x, codebook = cases.search(name)
    books = codebook if shared else cases.codebooks(codebook, LEVELS)
    mask = torch.arange(len(x)) % 4 != 1 if masked else None
    upstream = torch.randn(x.shape, generator=cases.generator(60))
    options = {"estimator": estimator, "mask": mask, **WEIGHTS}
    indices, _ = oracle.residual(x, books.expand(LEVELS, -1, -1))

    def gradients(out: Any, *leaves: Tensor) -> tuple[Tensor, ...]:
        total = (out.quantized * upstream.to(out.quantized.dtype)).sum() - 1.3 * out.loss
        return torch.autograd.grad(total, leaves)

    def plain(dtype: torch.dtype) -> tuple[textbook.Quantized, tuple[Tensor, ...]]:
        leaves = [leaf.clone().to(dtype).requires_grad_() for leaf in (x, books)]
        per_level = list(leaves[1].expand(LEVELS, -1, -1))
        out = textbook.residual_quantize(leaves[0], per_level, indices=indices, **options)
        return out, gradients(out, *leaves)

    leaves = x.clone().requires_grad_(), books.clone().requires_grad_()
    levels = LEVELS if shared else None
    out = vq.residual_quantize(*leaves, levels=levels, backend=backend, **options)
    truth, exact = plain(torch.float64)
    eager, usual = plain(torch.float32)

    assert torch.equal(out.indices, truth.indices)
    assert torch.equal(out.usage.counts, truth.counts.long())
    assert_within_budget(out.loss, truth.loss, eager.loss)
    assert_within_budget(out.usage.mse, truth.mse, eager.mse)
    # The sum of the codes in float32, which the textbook's x + (q - x) rounds once more.
    assert_within_budget(out.quantized, truth.quantized, eager.quantized)
    for got, wanted, yardstick in zip(gradients(out, *leaves), exact, usual, strict=True):
        assert_within_budget(got, wanted, yardstick)


@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
def test_one_level_is_vector_quantize(dtype: torch.dtype, backend: str) -> None:
    x, codebook = cases.search("photo 2x2x3")
    x = x.to(dtype)
    for estimator in cases.ESTIMATORS:
        results = []
        for quantize, codes in (
            (vq.vector_quantize, codebook),
            (vq.residual_quantize, [codebook]),
        ):
            leaf = x.clone().requires_grad_()
            out = quantize(leaf, codes, estimator=estimator, backend=backend)
            (out.quantized.float().square().sum() + out.loss).backward()
            values = (out.quantized, out.indices, out.loss, out.usage.counts, out.usage.mse)
            results.append([*values, leaf.grad])
        *bits, gradient = zip(*results, strict=True)
        for first, second in bits:
            assert torch.equal(first, second.reshape(first.shape))
        # What a level leaves is kept in float32: one rounding more in the commitment term.
        eps = torch.finfo(dtype).eps
        assert float((gradient[0] - gradient[1]).abs().max()) <= eps * float(x.abs().max())


def test_the_forms_of_codebooks_are_equal(backend: str) -> None:
    x, codebook = cases.batch()
    books = cases.codebooks(codebook, LEVELS)
    expected = vq.residual_quantize(x, books, backend=backend)
    for form in (list(books), tuple(books), books.transpose(1, 2).contiguous().transpose(1, 2)):
        out = vq.residual_quantize(x, form, backend=backend)
        assert torch.equal(out.quantized, expected.quantized)
        assert torch.equal(out.indices, expected.indices)
    one = vq.residual_quantize(x, codebook, levels=LEVELS, backend=backend)
    many = vq.residual_quantize(x, codebook.expand(LEVELS, -1, -1), backend=backend)
    for first, second in zip((*one[:3], *one.usage), (*many[:3], *many.usage), strict=True):
        assert torch.equal(first, second)


def test_codebooks_of_unequal_size_are_each_searched_whole_and_alone(backend: str) -> None:
    """Also the gradient: what makes them equally long must not be seen anywhere."""
    x, codebook = cases.search("gaussian")
    sizes = (5, len(codebook), 64, 1)
    full = cases.codebooks(codebook, LEVELS)
    books = [b[:k].clone().requires_grad_() for b, k in zip(full, sizes, strict=True)]
    out = vq.residual_quantize(x, books, backend=backend)
    out.loss.backward()
    indices, left, loss = [], x, 0.0
    for level, book in enumerate(books):
        code = book.detach().clone().requires_grad_()
        alone = vq.residual_quantize(left, [code], backend=backend)
        alone.loss.backward()
        assert torch.equal(out.usage.counts[level, : len(book)], alone.usage.counts[0])
        assert not out.usage.counts[level, len(book) :].any()
        assert torch.equal(book.grad, code.grad)
        indices.append(alone.indices)
        left, loss = left - alone.quantized.detach(), loss + alone.loss.detach()
    assert torch.equal(out.indices, torch.cat(indices, dim=1))
    assert abs(float(out.loss.detach() - loss)) <= LEVELS * torch.finfo(torch.float32).eps * float(
        loss
    )
    prepared = [vq.prepare(book.detach()) for book in books]
    assert torch.equal(vq.residual_quantize(x, prepared).quantized, out.quantized)


def test_kept_takes_any_integers_and_any_number(backend: str) -> None:
    x, codebook = cases.batch()
    books = cases.codebooks(codebook, LEVELS)
    kept = torch.arange(24) % 7 - 1
    expected = vq.residual_quantize(x, books, kept=kept.clamp(0, LEVELS), backend=backend)
    out = vq.residual_quantize(x, books, kept=kept.to(torch.int8), backend=backend)
    for first, second in zip(
        (*out[:3], *out.usage), (*expected[:3], *expected.usage), strict=True
    ):
        assert torch.equal(first, second)
    assert ((out.indices >= 0).sum(dim=1) == kept.clamp(0, LEVELS)).all()
    assert not out.quantized[kept <= 0].any()


def test_every_codebook_of_a_sequence_gets_its_gradient(backend: str) -> None:
    x, codebook = cases.batch()
    books = [book.clone().requires_grad_() for book in cases.codebooks(codebook, LEVELS)]
    vq.residual_quantize(x, books, backend=backend).loss.backward()
    stacked = torch.stack([book.detach() for book in books]).requires_grad_()
    vq.residual_quantize(x, stacked, backend=backend).loss.backward()
    assert torch.equal(torch.stack([book.grad for book in books]), stacked.grad)


def test_usage_describes_each_level(backend: str) -> None:
    x, codebook = cases.search("gaussian")
    usage = vq.residual_quantize(x, cases.codebooks(codebook, LEVELS), backend=backend).usage
    assert usage.counts.shape == (LEVELS, len(codebook))
    for level in range(LEVELS):
        alone = vq.CodeUsage(usage.counts[level], usage.mse[level])
        assert usage.perplexity[level] == alone.perplexity
        assert usage.active[level] == alone.active
        assert usage.active_ceiling[level] == alone.active_ceiling


@pytest.mark.parametrize("layout", ["NCHW", "channels last", "permuted", "transposed matrix"])
def test_results_and_gradients_keep_the_memory_format_of_x(layout: str, backend: str) -> None:
    rows, codebook = cases.batch()
    x, channel_dim = cases.LAYOUTS[layout](rows)
    books = cases.codebooks(codebook, LEVELS)
    out = vq.residual_quantize(x.requires_grad_(), books, channel_dim=channel_dim, backend=backend)
    (gradient,) = torch.autograd.grad(out.quantized.sum() + out.loss, x)
    assert out.quantized.stride() == x.stride()
    assert gradient.stride() == x.stride()


def test_changing_quantized_in_place_is_safe_for_straight_through(backend: str) -> None:
    """Nothing that the backward needs lies in its memory; the rotation is refused by PyTorch."""

    def gradient(inplace: bool, estimator: str) -> Tensor:
        x, codebook = cases.batch()
        x.requires_grad_()
        books = cases.codebooks(codebook, LEVELS)
        out = vq.residual_quantize(x, books, estimator=estimator, backend=backend)
        activated = torch.relu_(out.quantized) if inplace else out.quantized.relu()
        (activated.sum() + out.loss).backward()
        return x.grad

    first, second = (gradient(inplace, "straight_through") for inplace in (True, False))
    assert torch.equal(first, second)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        gradient(True, "rotation")


def test_the_codebooks_may_change_before_the_backward(backend: str) -> None:
    gradients = []
    for change in (False, True):
        x, codebook = cases.batch()
        books = cases.codebooks(codebook, LEVELS)
        leaf = x.requires_grad_()
        loss = vq.residual_quantize(leaf, books, estimator="rotation", backend=backend).loss
        if change:
            books.zero_()
        loss.backward()
        gradients.append(leaf.grad)
    assert torch.equal(*gradients)


def test_float64_runs_on_the_reference_in_float64() -> None:
    x, codebook = (value.double() for value in cases.batch())
    books = cases.codebooks(codebook, LEVELS)
    out = vq.residual_quantize(x, books)
    exact = sum(books[level][out.indices[:, level]] for level in range(LEVELS))
    assert out.quantized.dtype == out.loss.dtype == torch.float64
    assert torch.equal(out.quantized, exact)


X, CODES = cases.batch()
BOOKS = cases.codebooks(CODES, LEVELS)
ERRORS: list[tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
    ((X, CODES), {}, ValueError, "levels must be given with one codebook for all of them, got"),
    ((X, CODES), {"levels": 0}, ValueError, "levels must be at least 1, got 0"),
    ((X, CODES), {"levels": 2.0}, TypeError, "levels must be an integer, got 2.0"),
    ((X, BOOKS), {"levels": 3}, ValueError, "levels must be 4, one per codebook, got 3"),
    ((X, []), {}, ValueError, "codebooks must hold at least 1 codebook, got none"),
    ((X, BOOKS[:0]), {}, ValueError, "codebooks must hold at least 1 codebook, got none"),
    ((X, CODES[0]), {}, ValueError, "codebooks must have shape (L, K, D), or (K, D) with levels,"),
    ((X, BOOKS[None]), {}, ValueError, "codebooks must have shape (L, K, D), or (K, D) with"),
    ((X, 3), {}, TypeError, "codebooks must be a tensor or a sequence of tensors, got int"),
    ((X, [CODES, 3]), {}, TypeError, "codebooks[1] must be a torch.Tensor, got int"),
    ((X, [CODES, CODES.T]), {}, ValueError, "codebooks[1] must have shape (K, 6), got (6, 11)"),
    ((X, [CODES, CODES.half()]), {}, TypeError, "codebooks[1] must have the dtype of codebooks"),
    ((X, BOOKS.long()), {}, TypeError, "codebooks must be float32, float16, bfloat16 or"),
    ((X, BOOKS[:, :0]), {}, ValueError, "codebooks[0] must have shape (K, D) with K >= 1"),
    ((X[:, :5], BOOKS), {}, ValueError, "x must have size 6 in dimension 1 (channel_dim=1),"),
    ((X, BOOKS.to("meta")), {}, ValueError, "codebooks must be on the device of x (cpu), got"),
    ((X, BOOKS), {"estimator": "x"}, ValueError, "estimator must be one of 'straight_through',"),
    ((X, BOOKS), {"commitment_weight": -1}, ValueError, "commitment_weight must be at least 0"),
    ((X, BOOKS), {"codebook_weight": None}, TypeError, "codebook_weight must be a number, got"),
    ((X, BOOKS), {"mask": X}, TypeError, "mask must be torch.bool, got torch.float32"),
    ((X, BOOKS), {"kept": X}, TypeError, "kept must have an integer dtype, got torch.float32"),
    ((X, BOOKS), {"kept": CODES[0].long()}, ValueError, "kept must have shape (24,), got (6,)"),
    ((X, BOOKS), {"channel_dim": 3}, ValueError, "channel_dim must be in [-2, 1], got 3"),
    ((X, BOOKS), {"backend": "x"}, ValueError, "backend must be one of 'native', 'triton',"),
]


@pytest.mark.parametrize(("arguments", "options", "kind", "message"), ERRORS)
def test_bad_arguments_are_refused(
    arguments: tuple[Any, ...], options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=f"^{re.escape(message)}") as caught:
        vq.residual_quantize(*arguments, **options)
    assert type(caught.value) is kind


@pytest.mark.skipif("native" not in available(), reason="native is not built")
def test_a_named_backend_is_used_or_refused() -> None:
    with pytest.raises(TypeError, match="float64"):
        vq.residual_quantize(X.double(), BOOKS, backend="native")
    assert vq.explain(X, CODES).chosen["residual"] == "native"
