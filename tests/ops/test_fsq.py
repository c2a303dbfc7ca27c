"""fsq against the formula in float64: levels, gradient, error, counts, and codes back."""

from __future__ import annotations

import importlib
import itertools
import math
from collections.abc import Iterator
from typing import Any

import cases
import pytest
import torch
from backends import isa_levels, native_core
from budget import assert_within_budget
from torch import Tensor

from vqkernels import ops
from vqkernels._levels import BOUNDS, level_tables

LEVELS = (8, 5, 5, 5, 3, 6)  # as wide as the rows of ``cases.LAYOUTS``
K = math.prod(LEVELS)
KINDS = [
    pytest.param(symmetric, bound, id=f"{'symmetric' if symmetric else 'paper'}-{bound}")
    for symmetric, bound in itertools.product((False, True), BOUNDS)
]
kinds = pytest.mark.parametrize(("symmetric", "bound"), KINDS)


def bounded(x: Tensor, levels: tuple[int, ...], symmetric: bool, bound: str) -> Tensor:
    """The bounded (N, D) x in code space, as the papers write it; in the dtype of x."""
    counts = torch.tensor(levels, dtype=x.dtype)
    limit = torch.tanh if bound == "tanh" else lambda y: y.clamp(-1.0, 1.0)
    if symmetric:
        return limit(x)
    half_l = (counts - 1) * (1 + 1e-3) / 2
    offset = torch.where(counts % 2 == 0, 0.5, 0.0).to(x.dtype)
    shift = (offset / half_l).atanh() if bound == "tanh" else offset / half_l
    return (limit(x + shift) * half_l - offset) / (counts // 2)


def formula(
    x: Tensor, levels: tuple[int, ...], symmetric: bool, bound: str
) -> tuple[Tensor, Tensor, Tensor]:
    """(digits, codes, bounded) of the rows in float64; rounding up at a half."""
    exact = bounded(x.double(), levels, symmetric, bound)
    counts = torch.tensor(levels).double()
    half = counts - 1 if symmetric else counts // 2
    stride = 2 if symmetric else 1
    digits = ((exact * half + half) / stride + 0.5).floor()
    digits = digits.clamp(min=0).minimum(counts - 1)
    return digits.long(), (stride * digits - half) / half, exact


def slopes(x: Tensor, grad: Tensor, symmetric: bool, bound: str) -> list[Tensor]:
    """Autograd's gradient of the bounded rows in float64 and in float32."""
    found = []
    for kind in (torch.float64, torch.float32):
        leaf = x.to(kind, copy=True).requires_grad_()
        bounded(leaf, LEVELS, symmetric, bound).backward(grad.to(kind))
        assert leaf.grad is not None
        found.append(leaf.grad)
    return found


def index_of(digits: Tensor, levels: tuple[int, ...]) -> Tensor:
    index = torch.zeros_like(digits[..., 0])
    for i in reversed(range(len(levels))):
        index = index * levels[i] + digits[..., i]
    return index


def assert_mean_error(got: Tensor, exact: Tensor, eager: Tensor) -> None:
    """Each error is the difference of two rounded numbers up to 1, and enters by its square.

    The mean of their sizes is at most the root of the mean square.
    """
    assert_within_budget(got, exact, eager, intermediate=2.0 * float(exact.nan_to_num()) ** 0.5)


def rows(n: int = 500, d: int = len(LEVELS), seed: int = 60) -> Tensor:
    return 1.5 * torch.randn(n, d, generator=cases.generator(seed))


def call(x: Tensor, backend: str | None, **options: Any) -> tuple[Tensor, ...]:
    levels = options.get("levels", LEVELS)
    return ops.fsq(
        x,
        options.get("mask"),
        levels,
        options.get("symmetric", False),
        options.get("bound", "tanh"),
        options.get("num_counted", 0),
        options.get("channel_dim", 1) % x.ndim,
        backend,
    )


@kinds
@pytest.mark.parametrize("dtype", [*cases.DTYPES, torch.float64], ids=str)
def test_levels_are_those_of_the_formula(
    dtype: torch.dtype, symmetric: bool, bound: str, backend: str
) -> None:
    x = rows().to(dtype)
    digits, codes, exact = formula(x, LEVELS, symmetric, bound)
    named = None if dtype == torch.float64 else backend
    quantized, indices, mse, counts = call(
        x, named, symmetric=symmetric, bound=bound, num_counted=K
    )
    assert quantized.dtype == dtype
    assert torch.equal(indices, index_of(digits, LEVELS))
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert torch.equal(quantized, codes.to(wide).to(dtype))
    assert torch.equal(counts, torch.bincount(indices, minlength=K))
    eager = (bounded(x.to(wide), LEVELS, symmetric, bound) - codes.to(wide)).square().mean()
    assert mse.dtype == wide
    assert_mean_error(mse, (exact - codes).square().mean(), eager)


@kinds
@pytest.mark.parametrize("levels", [(2, 3, 4, 7), (33, 100), (1000, 65536)], ids=str)
def test_a_level_begins_at_its_threshold_and_not_a_float_before(
    levels: tuple[int, ...], symmetric: bool, bound: str, backend: str
) -> None:
    """At the smallest float32 of the level, and at the largest one of the level below."""
    levels = tuple(max(count, 2 + (not symmetric)) for count in levels)
    for i, count in enumerate(levels):
        tables = level_tables(levels, symmetric, bound, torch.device("cpu"))
        start = int(tables.start[i])
        first = tables.rounded[start + 1 : start + count]
        before = torch.nextafter(first, torch.full_like(first, -math.inf))
        number = torch.arange(1, count, dtype=torch.float64)
        exact = bounded(
            torch.cat([first, before]).double()[:, None].expand(-1, len(levels)),
            levels,
            symmetric,
            bound,
        )[:, i]
        half = count - 1 if symmetric else count // 2
        middle = (exact * half + half) / (1 + symmetric) + 0.5
        slack = 1e-9 * count  # of the float64 evaluation itself; a float32 step is larger
        assert (middle[: count - 1] >= number - slack).all()
        assert (middle[count - 1 :] < number + slack).all()
        for values, digit in ((first, number.long()), (before, number.long() - 1)):
            x = torch.zeros(count - 1, len(levels))
            x[:, i] = values
            found = call(x, backend, levels=levels, symmetric=symmetric, bound=bound)[1]
            basis = math.prod(levels[:i])
            assert torch.equal(found // basis % count, digit)


@kinds
def test_levels_stay_in_range_at_the_ends(symmetric: bool, bound: str, backend: str) -> None:
    """Rounding would leave it with 1000 levels and more: the bound reaches past the last one."""
    x = torch.tensor([[-3.0e38, 3.0e38], [3.0e38, -3.0e38], [-20.0, 20.0]])
    levels = (1001, 65536)
    found = call(x, backend, levels=levels, symmetric=symmetric, bound=bound)[1]
    low_high = 65535 * 1001
    assert found.tolist() == [low_high, 1000, low_high]


def test_a_symmetric_tie_at_zero_goes_up(backend: str) -> None:
    """Denormals and the sign of zero too: the comparison is exact."""
    tiny = 2.0**-149
    x = torch.tensor([[0.0], [-0.0], [tiny], [-tiny]])
    # A GPU has no such switch; the interpreter's numpy obeys the CPU's.
    for flush in (False,) if backend == "triton" else (False, True):
        torch.set_flush_denormal(flush)
        try:
            found = call(x, backend, levels=(4,), symmetric=True)[1]
        finally:
            torch.set_flush_denormal(False)
        assert found.tolist() == [2, 2, 2, 1]


@pytest.mark.parametrize("layout", cases.LAYOUTS)
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
def test_any_layout(layout: str, dtype: torch.dtype, backend: str) -> None:
    x, channel_dim = cases.LAYOUTS[layout](cases.batch()[0].to(dtype))
    channel_dim %= x.ndim
    matrix = cases.as_matrix(x, channel_dim)
    quantized, indices, mse, counts = call(x, backend, channel_dim=channel_dim, num_counted=K)
    flat = call(matrix, "reference", num_counted=K)
    assert torch.equal(cases.as_matrix(quantized, channel_dim), flat[0])
    assert torch.equal(indices.reshape(-1), flat[1])
    assert_mean_error(mse, flat[2].double(), flat[2])
    assert torch.equal(counts, flat[3])
    grad = torch.randn(matrix.shape, generator=cases.generator(3)).to(dtype)
    upstream = torch.empty_like(x)
    upstream = grad.reshape(*upstream.movedim(channel_dim, -1).shape).movedim(-1, channel_dim)
    options = (None, LEVELS, False, "tanh")
    got = ops.fsq_backward(upstream, x, *options, channel_dim, backend)
    assert_within_budget(cases.as_matrix(got, channel_dim), *slopes(matrix, grad, False, "tanh"))


@kinds
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
def test_the_gradient_is_that_of_the_bound(
    dtype: torch.dtype, symmetric: bool, bound: str, backend: str
) -> None:
    x = rows(600).to(dtype)
    x[:6] = torch.tensor([-1.0, 1.0, 0.0, -30.0, 30.0, 0.5]).to(dtype)[:, None]
    grad = torch.randn(x.shape, generator=cases.generator(4)).to(dtype)
    if bound == "clamp" and not symmetric:  # in float32 the sum may leave the clamp by a rounding
        edge = (x.double() + _shift()).abs() - 1.0
        x = torch.where(edge.abs() > 1e-6, x, 0.25)
    got = ops.fsq_backward(grad, x, None, LEVELS, symmetric, bound, 1, backend)
    assert_within_budget(got, *slopes(x, grad, symmetric, bound))


def _shift() -> Tensor:
    return level_tables(LEVELS, False, "clamp", torch.device("cpu")).shift


@pytest.mark.parametrize("layout", ["matrix", "NCHW", "permuted", "every other channel"])
def test_masked_rows_pass_through(layout: str, backend: str) -> None:
    base = cases.batch()[0].clone()
    x, channel_dim = cases.LAYOUTS[layout](base)
    indices = call(x, backend, channel_dim=channel_dim)[1]
    mask = (torch.arange(indices.numel()) % 3 != 0).reshape(indices.shape)
    x.movedim(channel_dim, -1)[~mask] = torch.nan
    options = {"mask": mask, "channel_dim": channel_dim, "num_counted": K}
    quantized, found, mse, counts = call(x, backend, **options)
    assert torch.equal(found, torch.where(mask, indices, -1))
    assert torch.equal(counts, torch.bincount(indices[mask], minlength=K))
    valid = quantized.movedim(channel_dim, -1)[mask]
    assert quantized.movedim(channel_dim, -1)[~mask].isnan().all()
    assert torch.equal(valid, ops.fsq_lookup(indices[mask], LEVELS, False, 1))
    matrix = x.movedim(channel_dim, -1)[mask]
    alone = call(matrix, "reference")[2]
    assert_mean_error(mse, alone.double(), alone)
    grad = torch.ones_like(x)
    backward = ops.fsq_backward(grad, x, mask, LEVELS, False, "tanh", channel_dim, backend)
    assert (backward.movedim(channel_dim, -1)[~mask] == 1.0).all()
    assert (backward.movedim(channel_dim, -1)[mask] != 1.0).all()


@pytest.mark.parametrize("bound", ["tanh", "clamp"])
def test_an_element_that_is_not_finite_has_no_gradient(bound: str, backend: str) -> None:
    x = rows(4)
    x[0, 0], x[1, 1], x[2, 2] = torch.nan, torch.inf, -torch.inf
    options = (LEVELS, False, bound, 1, backend)
    grad = ops.fsq_backward(torch.ones_like(x), x, None, *options)
    wanted = ops.fsq_backward(torch.ones_like(x), x.nan_to_num(0.0, 9.0, -9.0), None, *options)
    assert torch.equal(grad == 0, ~x.isfinite() | (wanted == 0))
    assert torch.equal(grad[x.isfinite()], wanted[x.isfinite()])


def test_a_row_that_is_not_finite_is_nan_and_nobodys(backend: str) -> None:
    x = rows(1200)
    clean = call(x, backend)
    x[3, 0], x[700, 5], x[701, 2] = torch.nan, torch.inf, -torch.inf
    bad = torch.tensor([3, 700, 701])
    quantized, indices, mse, counts = call(x, backend, num_counted=K)
    finite = x.isfinite().all(dim=1)
    assert (indices[bad] == 0).all()
    assert quantized[bad].isnan().all()
    assert mse.isnan()
    assert torch.equal(indices[finite], clean[1][finite])
    assert torch.equal(quantized[finite], clean[0][finite])
    assert torch.equal(counts, torch.bincount(indices[finite], minlength=K))


def test_no_rows_have_no_error(backend: str) -> None:
    mask = torch.zeros(4, dtype=torch.bool)
    for x, chosen in ((rows(0), None), (rows(4), mask)):
        quantized, indices, mse, counts = call(x, backend, mask=chosen, num_counted=K)
        assert mse == 0.0
        assert counts.sum() == 0
        assert torch.equal(quantized, x)
        assert (indices == -1).all()


@pytest.mark.usefixtures("two_threads")
def test_thread_count_changes_no_bit(backend: str) -> None:
    x, grad = rows(5000), rows(5000, seed=61)
    results = []
    for threads in (1, 2, 3, 1):
        torch.set_num_threads(threads)
        step = call(x, backend, num_counted=K)
        backward = ops.fsq_backward(grad, x, None, LEVELS, False, "tanh", 1, backend)
        results.append((*step, backward, ops.fsq_lookup(step[1], LEVELS, False, 1)))
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@pytest.fixture(params=isa_levels())
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    core = native_core()
    before = core.isa()
    core.force_isa(request.param)
    yield request.param
    core.force_isa(before)


@pytest.mark.parametrize("levels", [LEVELS, (4, 40, 1000, 3, 3, 65536)], ids=str)
@kinds
def test_every_instruction_set_has_the_bits_of_the_reference(
    level: str, levels: tuple[int, ...], symmetric: bool, bound: str
) -> None:
    """Of indices, vectors and counts. The error and the gradient are float32 arithmetic."""
    x, grad = rows(3001), rows(3001, seed=62)
    x[7], x[600, 3] = torch.nan, torch.inf
    mask = torch.arange(3001) % 5 != 1
    options = {"levels": levels, "symmetric": symmetric, "bound": bound}
    for masked in (None, mask):
        got = call(x, "native", mask=masked, **options)
        exact = call(x, "reference", mask=masked, **options)
        assert torch.equal(got[1], exact[1])
        assert torch.equal(got[0].nan_to_num(), exact[0].nan_to_num())
        assert torch.equal(got[0].isnan(), exact[0].isnan())
        codes = ops.fsq_lookup(got[1], levels, symmetric, 1)
        valid = exact[1] > 0
        assert torch.equal(codes[valid], got[0][valid])
        options_of_grad = (masked, levels, symmetric, bound, 1)
        slope = ops.fsq_backward(grad, x, *options_of_grad, "native")
        wanted = ops.fsq_backward(grad.double(), x.double(), *options_of_grad, None)
        # The slope is a product of five float32 operations on an exponential within 2 units.
        near = (slope.double() - wanted).abs() <= 8 * torch.finfo(torch.float32).eps * wanted.abs()
        assert (near | (wanted.abs() < 1e-30) | wanted.isnan()).all()


@pytest.fixture
def _backend_of_lookup(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """fsq_lookup takes no backend argument: without the extension it runs on the reference."""
    if backend == "reference":
        core = importlib.import_module("vqkernels.backends.native._core")
        monkeypatch.setattr(core, "_why", "switched off by a test")


lookups = pytest.mark.usefixtures("_backend_of_lookup")


@lookups
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32], ids=str)
def test_every_index_is_its_own_code(symmetric: bool, dtype: torch.dtype) -> None:
    indices = torch.arange(K).to(dtype)
    codes = ops.fsq_lookup(indices, LEVELS, symmetric, 1)
    grid = []
    for count in LEVELS:
        digit = torch.arange(count)
        half = count - 1 if symmetric else count // 2
        grid.append((2 * digit - half) / half if symmetric else (digit - half) / half)
    expected = torch.cartesian_prod(*reversed(grid)).flip(1)
    assert torch.equal(codes, expected)


@lookups
@pytest.mark.parametrize("levels", [(16,) * 10, (2,) * 62, (65536, 65536, 65535, 3, 3)], ids=str)
def test_indices_beyond_32_bits_go_both_ways(levels: tuple[int, ...]) -> None:
    k = math.prod(levels)
    g = cases.generator(5)
    digits = torch.stack([torch.randint(count, (300,), generator=g) for count in levels], dim=1)
    digits[0], digits[1] = 0, torch.tensor(levels) - 1
    indices = index_of(digits, levels)
    assert int(indices[1]) == k - 1
    assert int(indices.max()) > 2**31
    codes = ops.fsq_lookup(indices, levels, True, 1)
    tables = level_tables(levels, True, "clamp", torch.device("cpu"))
    assert torch.equal(codes, ((2 * digits - tables.half) / tables.half).float())
    for backend in ("reference", None):
        assert torch.equal(
            call(codes, backend, levels=levels, symmetric=True, bound="clamp")[1], indices
        )


@lookups
def test_indices_that_are_no_codes() -> None:
    masked = ops.fsq_lookup(torch.tensor([[-1, 3]]), LEVELS, False, 1)
    assert masked.shape == (1, 6, 2)
    assert (masked[..., 0] == 0.0).all()
    assert (masked[..., 1] != 0.0).any()
    for bad in (-2, K, 2**40):
        with pytest.raises(ValueError, match=rf"indices must be in \[-1, {K - 1}\], got {bad}"):
            ops.fsq_lookup(torch.tensor([0, bad]), LEVELS, False, 1)
