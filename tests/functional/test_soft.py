"""code_entropy, code_cross_entropy and code_orthogonality against the dense formulas."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import cases
import pytest
import textbook
import torch
from budget import assert_within_budget
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn import functional as F

import vqkernels as vq
from vqkernels._soft import regularization

TARGETS = torch.arange(300) * 7 % 257
TARGETS[::11] = -1
MASK = torch.arange(300) % 5 != 0
TEMPERATURE = {"l2": 10.0, "cosine": 0.1}


def _logits(x: Tensor, codebook: Tensor, metric: str) -> Tensor:
    if metric == "l2":
        return textbook.soft_logits(x, codebook, TEMPERATURE[metric])
    return F.normalize(x) @ F.normalize(codebook).T / TEMPERATURE[metric]


def _dense(x: Tensor, codebook: Tensor, metric: str, mask: Tensor | None) -> list[Tensor]:
    """(per_row, usage, cross-entropy) of the rows that count."""
    counts = x.detach().isfinite().all(dim=1) & (MASK | True if mask is None else mask)
    logits = _logits(x[counts], codebook, metric)
    p = logits.softmax(dim=1)
    mean = p.mean(dim=0)
    return [
        -(p * logits.log_softmax(dim=1)).sum(dim=1).mean(),
        -torch.special.xlogy(mean, mean).sum(),
        F.cross_entropy(logits, TARGETS[counts], ignore_index=-1),
    ]


def _ours(
    x: Tensor, codebook: Tensor, metric: str, mask: Tensor | None, backend: str | None
) -> list[Tensor]:
    options: dict[str, Any] = {
        **{"temperature": TEMPERATURE[metric], "metric": metric, "mask": mask},
        "backend": backend,
    }
    entropy = vq.code_entropy(x, codebook, **options)
    return [*entropy, vq.code_cross_entropy(x, codebook, TARGETS, **options)]


def _with_gradients(
    losses: Callable[..., list[Tensor]], x: Tensor, codebook: Tensor, *rest: Any
) -> list[Tensor]:
    x, codebook = x.clone().requires_grad_(), codebook.clone().requires_grad_()
    values = losses(x, codebook, *rest)
    for value in values:
        assert value.ndim == 0
    grads = [torch.autograd.grad(value, (x, codebook), retain_graph=True) for value in values]
    return [*(value.detach() for value in values), *(grad for pair in grads for grad in pair)]


@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "masked"])
@pytest.mark.parametrize("metric", cases.METRICS)
def test_values_and_gradients_are_the_dense_ones(
    metric: str, mask: Tensor | None, backend: str
) -> None:
    x, codebook = cases.gaussian()
    got = _with_gradients(_ours, x, codebook, metric, mask, backend)
    exact = _with_gradients(_dense, x.double(), codebook.double(), metric, mask)
    eager = _with_gradients(_dense, x, codebook, metric, mask)
    # What a gradient is the difference of: sums of 2/T A x and 2/T A c, where the A of a row add
    # up to 1/N at most times an entropy. Cosine: lengths are 1, and 1/|x| is below 1 here.
    lengths = float(x.abs().max() + codebook.abs().max()) if metric == "l2" else 2.0
    terms = 4.0 / TEMPERATURE[metric] * lengths / len(x)
    for value, truth, plain in zip(got, exact, eager, strict=True):
        assert value.dtype == torch.float32
        assert_within_budget(value, truth, plain, terms if value.ndim else float(truth.abs()))


@pytest.mark.parametrize("metric", cases.METRICS)
def test_rows_that_are_not_finite_are_left_out(metric: str, backend: str) -> None:
    x, codebook = cases.search("non-finite rows")
    got = _with_gradients(_ours, x, codebook, metric, None, backend)
    kept = x.isfinite().all(dim=1)
    exact = _dense(x.double(), codebook.double(), metric, None)
    for value, truth in zip(got[:3], exact, strict=True):
        assert abs(float(value) - float(truth)) < 1e-5
    for grad in got[3::2]:
        assert not grad[~kept].any()
        assert grad.isfinite().all()


@pytest.mark.parametrize("metric", cases.METRICS)
def test_without_a_row_everything_is_zero(metric: str, backend: str) -> None:
    x, codebook = cases.gaussian()
    for value in _with_gradients(_ours, x, codebook, metric, MASK & False, backend):
        assert not value.any()
    entropy = vq.code_entropy(x[:0], codebook, metric=metric, backend=backend)
    assert not torch.stack(entropy).any()


def test_a_zero_row_is_equally_near_to_all_codes(backend: str) -> None:
    _, codebook = cases.gaussian()
    x = torch.zeros(4, 24, requires_grad=True)
    out = vq.code_entropy(x, codebook, metric="cosine", temperature=0.01, backend=backend)
    assert abs(float(out.per_row.detach()) - torch.tensor(257.0).log()) < 1e-5
    (out.per_row + out.usage).backward()
    assert not x.grad.any()


def test_an_unsigned_target_of_255_is_a_code(backend: str) -> None:
    """And not the -1 of its bits."""
    x, codebook = cases.gaussian()
    last = torch.full(x.shape[:1], 255, dtype=torch.uint8)
    found = vq.code_cross_entropy(x, codebook, last, backend=backend)
    assert found > 0
    assert torch.equal(found, vq.code_cross_entropy(x, codebook, last.long(), backend=backend))


def test_codes_without_probability_get_no_gradient(backend: str) -> None:
    """log 0 would make it NaN."""
    x, codebook = cases.gaussian(20, 9, 4)
    codebook[3:] += 1e4
    x, codebook = x.requires_grad_(), codebook.requires_grad_()
    vq.code_entropy(x, codebook, temperature=0.5, backend=backend).usage.backward()
    assert x.grad.isfinite().all()
    assert codebook.grad.isfinite().all()
    assert codebook.grad[:3].any()
    assert not codebook.grad[3:].any()


@pytest.mark.parametrize("layout", ["NCHW", "channels last", "BTD", "channels first"])
@pytest.mark.parametrize("metric", cases.METRICS)
def test_layouts(layout: str, metric: str, backend: str) -> None:
    rows, codebook = cases.batch()
    x, channel_dim = cases.LAYOUTS[layout](rows)
    targets = (torch.arange(24) % 11).reshape(x.movedim(channel_dim, -1).shape[:-1])
    options = {"metric": metric, "channel_dim": channel_dim, "backend": backend}
    got = vq.code_cross_entropy(x, codebook, targets, **options)
    flat = vq.code_cross_entropy(
        rows, codebook, targets.reshape(-1), metric=metric, backend=backend
    )
    assert abs(float(got) - float(flat)) <= 1e-6 * abs(float(flat))


@pytest.mark.parametrize("name", ["gaussian", "half duplicated", "all equal", "x on codes"])
def test_orthogonality_is_that_of_the_k_by_k_matrix(name: str) -> None:
    _, codebook = cases.search(name)
    counts = torch.arange(len(codebook)) % 3
    for used in (None, counts):

        def dense(codes: Tensor, used: Tensor | None = used) -> list[Tensor]:
            codes = codes if used is None else codes[used > 0]
            cosines = F.normalize(codes) @ F.normalize(codes).T
            return [cosines.square().mean() - 1.0 / len(codes)]

        got = codebook.clone().requires_grad_()
        value = vq.code_orthogonality(got, used)
        value.backward()
        results = []
        for dtype in (torch.float64, torch.float32):
            codes = codebook.detach().to(dtype, copy=True).requires_grad_()
            (loss,) = dense(codes)
            loss.backward()
            results.append((loss.detach(), codes.grad))
        assert_within_budget(value.detach(), results[0][0], results[1][0])
        assert_within_budget(got.grad, results[0][1], results[1][1])


def test_orthogonal_codes_have_no_orthogonality_loss() -> None:
    assert float(vq.code_orthogonality(3.0 * torch.eye(8))) == pytest.approx(0.0, abs=1e-7)
    assert float(vq.code_orthogonality(torch.ones(8, 3))) == pytest.approx(1 - 1 / 8)
    broken = torch.eye(8)
    broken[0, 0] = torch.nan
    assert float(vq.code_orthogonality(broken)) == pytest.approx(0.0, abs=1e-7)
    assert float(vq.code_orthogonality(torch.eye(8), torch.zeros(8))) == 0.0


def test_options_give_the_documented_sums(backend: str) -> None:
    x, codebook = cases.gaussian()
    counts = torch.arange(257) % 2
    options: dict[str, Any] = {"metric": "l2", "channel_dim": 1, "backend": backend}
    entropy = vq.code_entropy(x, codebook, temperature=5.0, mask=MASK, backend=backend)
    loss = regularization(vq.Entropy(0.5, 5.0, 2.0), x, codebook, MASK, counts, **options)
    assert torch.equal(loss, 0.5 * (entropy.per_row - 2.0 * entropy.usage))
    for active in (False, True):
        option = vq.Orthogonal(2.0, active_only=active)
        loss = regularization(option, x, codebook, None, counts, **options)
        assert torch.equal(loss, 2.0 * vq.code_orthogonality(codebook, counts if active else None))


@pytest.fixture
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("_fresh_compiler")
def test_one_graph_for_any_batch_size() -> None:
    codebook = cases.gaussian()[1].requires_grad_()
    counter = CompileCounterWithBackend("aot_eager")

    def loss(x: Tensor, targets: Tensor) -> Tensor:
        entropy = vq.code_entropy(x, codebook, temperature=10.0, metric="cosine")
        cross = vq.code_cross_entropy(x, codebook, targets, temperature=10.0)
        return entropy.per_row - entropy.usage + cross + vq.code_orthogonality(codebook)

    compiled = torch.compile(loss, backend=counter, fullgraph=True, dynamic=True)
    for n in (40, 70, 300, 100):
        x = cases.gaussian(n)[0]
        results = []
        for call in (loss, compiled):
            rows = x.clone().requires_grad_()
            value = call(rows, TARGETS[:n])
            value.backward()
            results.append((value.detach(), rows.grad))
        for plain, traced in zip(*results, strict=True):
            assert torch.allclose(plain, traced, rtol=1e-5, atol=1e-9)
    assert counter.frame_count == 1


X, CODES = cases.batch()
ERRORS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (
        lambda: vq.code_entropy(X, CODES, temperature=0.0),
        ValueError,
        "temperature must be above 0, got 0.0",
    ),
    (
        lambda: vq.code_entropy(X, CODES, metric="dot"),
        ValueError,
        "metric must be one of 'l2', 'cosine', got 'dot'",
    ),
    (
        lambda: vq.code_entropy(X, CODES, mask=torch.ones(3, dtype=torch.bool)),
        ValueError,
        "mask must have shape (24,), got (3,)",
    ),
    (
        lambda: vq.code_cross_entropy(X, CODES, torch.zeros(24)),
        TypeError,
        "targets must have an integer dtype, got torch.float32",
    ),
    (
        lambda: vq.code_cross_entropy(X, CODES, torch.full((24,), 11)),
        ValueError,
        "indices must be in [-1, 10], got 11",
    ),
    (
        lambda: vq.code_orthogonality(CODES, torch.ones(3)),
        ValueError,
        "counts must have shape (11,), got (3,)",
    ),
    (lambda: vq.Entropy(-1.0), ValueError, "Entropy.weight must be at least 0, got -1.0"),
    (lambda: vq.Entropy(1.0, 0.0), ValueError, "Entropy.temperature must be above 0, got 0.0"),
    (lambda: vq.Orthogonal(-1.0), ValueError, "Orthogonal.weight must be at least 0, got -1.0"),
]


@pytest.mark.parametrize(("call", "kind", "message"), ERRORS, ids=[e[2] for e in ERRORS])
def test_errors(call: Callable[[], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match="^" + re.escape(message)):
        call()
