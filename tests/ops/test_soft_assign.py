"""soft_assign and its gradients against the dense softmax of the textbook."""

from __future__ import annotations

from typing import Any

import cases
import pytest
import textbook
import torch
from backends import isa_levels, native_core
from budget import assert_within_budget
from torch import Tensor

from vqkernels import ops

# Cases whose squared distances float32 can hold, so that eager PyTorch can be the yardstick.
NAMES = (
    "gaussian",
    "photo 2x2x3",
    "photo unit norm",
    "shifted by 1000",
    "all equal",
    "half duplicated",
    "integer grid",
    "zeros",
    "x on codes",
    "one cluster far away",
    "near ties",
    "non-finite rows",
    "non-finite codes",
)


def _typical_distance(x: Tensor, codebook: Tensor) -> float:
    """The median squared distance to the nearest code, or a thousandth of the mean to any."""
    logits = textbook.soft_logits(x.double(), codebook.double(), 1.0)
    logits = logits[x.isfinite().all(dim=1)]
    usable = logits[:, codebook.isfinite().all(dim=1)]
    return max(float(-usable.amax(dim=1).median()), float(-usable.mean()) / 1000.0)


def _grads(x: Tensor, codebook: Tensor, dtype: torch.dtype) -> list[Tensor]:
    g = cases.generator(70)
    shapes = (len(x), len(x), len(codebook))
    return [torch.randn(shape, generator=g, dtype=torch.float64).to(dtype) for shape in shapes]


def _dense(
    x: Tensor, codebook: Tensor, temperature: float, mask: Tensor | None, dtype: torch.dtype
) -> list[Tensor]:
    """The three results and the two gradients, by autograd."""
    x, codebook = (value.to(dtype, copy=True).requires_grad_() for value in (x, codebook))
    out = textbook.soft_assign(x, codebook, temperature, mask)
    torch.autograd.backward(out, _grads(x, codebook, dtype))
    return [*(value.detach() for value in out), x.grad, codebook.grad]


def _ours(
    x: Tensor,
    codebook: Tensor,
    temperature: float,
    mask: Tensor | None,
    backend: str,
    channel_dim: int = 1,
) -> list[Tensor]:
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    codebook = codebook.clone().requires_grad_()
    out = ops.SoftAssign.apply(x, codebook, mask, temperature, channel_dim, True, backend)
    of_logsumexp, of_mean, of_usage = _grads(out[0].reshape(-1), codebook, torch.float64)
    shape = out[0].shape
    torch.autograd.backward(
        out, [of_logsumexp.reshape(shape), of_mean.reshape(shape), of_usage.to(out[2].dtype)]
    )
    return [*(value.detach() for value in out), x.grad, codebook.grad]


def _terms(x: Tensor, codebook: Tensor, temperature: float, mask: Tensor | None) -> list[float]:
    """What the five values are differences of, x and c taken about the centre of the codes.

    A logit: (|x|^2 + |c|^2) / T, and its error is one of p relative to p. A gradient: the sums
    2/T |A| |x| and 2/T |A| |c|, with A the gradient of the logits, over codes or over rows. Twice
    each: a term is rounded when it is made, and its chain of float32 additions is once more.
    """
    counts = x.isfinite().all(dim=1) if mask is None else mask & x.isfinite().all(dim=1)
    usable = codebook.isfinite().all(dim=1)
    rows, codes = x.double()[counts], codebook.double()[usable]
    rows, codes = rows - codes.mean(dim=0), codes - codes.mean(dim=0)
    if not len(rows):
        return [0.0] * 5
    logits = textbook.soft_logits(rows, codes, temperature).requires_grad_()
    p = logits.softmax(dim=1)
    grads = _grads(x, codebook, torch.float64)
    out = (logits.logsumexp(dim=1), (p * logits).sum(dim=1), p.sum(dim=0))
    torch.autograd.backward(out, [grads[0][counts], grads[1][counts], grads[2][usable]])
    squares = float(rows.square().sum(dim=1).max() + codes.square().sum(dim=1).max())
    of_logits, of_usage = 2.0 * squares / temperature, float(out[2].detach().max())
    size = 4.0 / temperature * float(rows.abs().max() + codes.abs().max())
    of_gradients = (size * float(logits.grad.abs().sum(dim=d).max()) for d in (1, 0))
    return [of_logits, of_logits, of_logits * of_usage, *of_gradients]


def _assert_close(
    x: Tensor, codebook: Tensor, temperature: float, mask: Tensor | None, backend: str
) -> None:
    got = _ours(x, codebook, temperature, mask, backend)
    exact = _dense(x, codebook, temperature, mask, torch.float64)
    eager = _dense(x, codebook, temperature, mask, torch.float32)
    assert got[0].dtype == got[1].dtype == torch.float64
    terms = _terms(x, codebook, temperature, mask)
    for value, truth, plain, size in zip(got, exact, eager, terms, strict=True):
        narrow = value.float() if value.dtype == torch.float64 else value
        assert_within_budget(narrow, truth, plain, size)


@pytest.mark.parametrize("relative", [0.25, 5.0])
@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_are_those_of_the_dense_softmax(
    name: str, relative: float, backend: str
) -> None:
    x, codebook = cases.search(name)
    x = x[:100]
    _assert_close(x, codebook, relative * _typical_distance(x, codebook), None, backend)


def test_codes_far_from_the_origin_are_as_sharp_as_near_it(backend: str) -> None:
    """A temperature is high or low for the distances between the codes, wherever they lie."""
    x, codebook = cases.gaussian(100, 130, 7)
    _assert_close(x + 1e6, codebook + 1e6, 1.0, None, backend)


@pytest.mark.parametrize("shape", cases.SHAPES, ids=str)
def test_odd_shapes(shape: tuple[int, int, int], backend: str) -> None:
    x, codebook = cases.gaussian(*shape)
    mask = torch.rand(len(x), generator=cases.generator(71)) < 0.8
    _assert_close(x, codebook, float(shape[2]), mask, backend)


@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
def test_half_precision_input_is_upcast(dtype: torch.dtype, backend: str) -> None:
    x, codebook = cases.search("gaussian", dtype)
    got = _ours(x, codebook, 20.0, None, backend)
    exact = _ours(x.float(), codebook.float(), 20.0, None, backend)
    assert got[3].dtype == got[4].dtype == dtype
    for value, wide in zip(got, exact, strict=True):
        assert torch.equal(value, wide.to(value.dtype))


@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_layouts_change_no_bit(layout: str, dtype: torch.dtype, backend: str) -> None:
    rows, codebook = cases.batch()
    x, channel_dim = cases.LAYOUTS[layout](rows.to(dtype))
    channel_dim %= x.ndim
    matrix = cases.as_matrix(x, channel_dim)
    mask = torch.arange(len(matrix)) % 3 != 0
    shape = x.movedim(channel_dim, -1).shape[:-1]
    got = _ours(x, codebook, 6.0, mask.reshape(shape), backend, channel_dim)
    flat = _ours(matrix, codebook, 6.0, mask, backend)
    got[3] = cases.as_matrix(got[3], channel_dim)
    for value, expected in zip(got, flat, strict=True):
        assert torch.equal(value.reshape(expected.shape), expected)


def test_masked_and_nonfinite_rows_count_nowhere(backend: str) -> None:
    x, codebook = cases.search("non-finite rows")
    mask = torch.arange(len(x)) % 4 != 0
    kept = mask & x.isfinite().all(dim=1)
    got = _ours(x, codebook, 20.0, mask, backend)
    for value in (got[0], got[1], got[3]):
        assert value.isfinite().all()
        assert not value[~kept].any()
    exact = _dense(x[kept], codebook, 20.0, None, torch.float64)
    assert torch.allclose(got[2].double(), exact[2], rtol=1e-5, atol=0.0)


def test_codes_that_are_not_finite_have_no_probability(backend: str) -> None:
    x, codebook = cases.search("non-finite codes")
    usable = codebook.isfinite().all(dim=1)
    got = _ours(x, codebook, 20.0, None, backend)
    assert not got[2][~usable].any()
    assert not got[4][~usable].any()


def test_without_a_finite_code_everything_is_zero(backend: str) -> None:
    x, codebook = cases.search("no finite code")
    for value in _ours(x, codebook, 20.0, None, backend):
        assert not value.any()


@pytest.mark.parametrize("name", ["scale 1e-20", "scale 1e18", "largest floats"])
def test_extreme_scales_give_probabilities(name: str, backend: str) -> None:
    """Where eager float32 has only infinities and NaN: a softmax all the same."""
    x, codebook = cases.search(name)
    exact = textbook.soft_assign(x.double(), codebook.double(), 1.0)
    got = _ours(x, codebook, 1.0, None, backend)
    assert torch.allclose(got[0], exact.logsumexp, rtol=1e-6)
    assert abs(float(got[2].sum()) / len(x) - 1.0) < 1e-5
    assert bool((got[2] >= 0).all())
    assert torch.allclose(got[2].double(), exact.usage, rtol=1e-4, atol=1e-4)


def test_a_low_temperature_takes_the_nearest_code(backend: str) -> None:
    x, codebook = cases.gaussian()
    temperature = 1e-9
    squared = -textbook.soft_logits(x.double(), codebook.double(), 1.0)
    got = _ours(x, codebook, temperature, None, backend)
    nearest = torch.bincount(squared.argmin(dim=1), minlength=len(codebook))
    assert torch.equal(got[2].round().long(), nearest)
    assert torch.allclose(got[0] * temperature, -squared.amin(dim=1), rtol=1e-5)
    assert float((got[0] - got[1]).abs().max()) < 1e-3


def test_the_codebook_may_move_between_forward_and_backward(backend: str) -> None:
    x, codebook = cases.gaussian()
    expected = _ours(x, codebook, 20.0, None, backend)[3]
    x.requires_grad_()
    out = ops.SoftAssign.apply(x, codebook, None, 20.0, 1, True, backend)
    codebook.add_(1.0)
    grads = _grads(x, codebook, torch.float64)
    torch.autograd.backward(out, [*grads[:2], grads[2].float()])
    assert torch.equal(x.grad, expected)


def test_autocast_changes_no_bit(backend: str) -> None:
    x, codebook = cases.gaussian()
    without = _ours(x, codebook, 20.0, None, backend)
    with torch.autocast("cpu", torch.bfloat16):
        within = _ours(x, codebook, 20.0, None, backend)
    for value, expected in zip(within, without, strict=True):
        assert torch.equal(value, expected)


@pytest.mark.usefixtures("two_threads")
def test_thread_count_changes_no_bit(backend: str) -> None:
    x, codebook = cases.gaussian(3000, 300, 20)
    results = []
    for threads in (1, 2, 3, 1):
        torch.set_num_threads(threads)
        results.append(_ours(x, codebook, 20.0, None, backend))
    for other in results[1:]:
        for first, again in zip(results[0], other, strict=True):
            assert torch.equal(first, again)


def test_gradients_that_are_not_asked_for_are_not_made(backend: str) -> None:
    x, codebook = cases.gaussian()
    both = _ours(x, codebook, 20.0, None, backend)
    grads = _grads(x, codebook, torch.float64)

    def backward(**needs: Any) -> tuple[Tensor, Tensor]:
        return ops.soft_assign_backward(
            *(*grads[:2], grads[2].float(), x, codebook, None, *both[:2], 20.0, 1),
            needs["x"],
            needs["codebook"],
            backend,
        )

    of_x, nothing = backward(x=True, codebook=False)
    assert torch.equal(of_x, both[3])
    assert nothing.numel() == 0
    nothing, of_codes = backward(x=False, codebook=True)
    assert torch.equal(of_codes, both[4])
    assert nothing.numel() == 0


def test_float64_stays_float64() -> None:
    x, codebook = (value.double() for value in cases.gaussian())
    got = _ours(x, codebook, 20.0, None, "reference")
    for value, exact in zip(got, _dense(x, codebook, 20.0, None, torch.float64), strict=True):
        assert value.dtype == torch.float64
        assert torch.allclose(value, exact, rtol=1e-10, atol=1e-12)


@pytest.mark.skipif(native_core() is None, reason="native is not built")
@pytest.mark.parametrize("level", isa_levels())
def test_every_instruction_set_level(level: str) -> None:
    core = native_core()
    before = core.isa()
    core.force_isa(level)
    try:
        for shape in cases.SHAPES:
            _assert_close(*cases.gaussian(*shape), float(shape[2]), None, "native")
        _assert_close(*cases.search("photo 2x2x3"), 0.01, None, "native")
    finally:
        core.force_isa(before)
