"""All levels of a residual quantizer against the oracle, applied level by level."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import cases
import oracle
import pytest
import torch
from backends import isa_levels, native_core
from budget import assert_summed_in_float64
from torch import Tensor

from vqkernels import ops

LEVELS = 3


class Result(NamedTuple):
    quantized: Tensor
    indices: Tensor
    mse: Tensor
    counts: Tensor
    sums: Tensor
    remainder: Tensor
    code_remainders: Tensor


def _residual(
    x: Tensor,
    codebooks: Tensor,
    backend: str,
    mask: Tensor | None = None,
    levels: int | None = None,
    channel_dim: int = 1,
    kept: Tensor | None = None,
) -> Result:
    levels = len(codebooks) if levels is None else levels
    need = (True, True, True)
    return Result(
        *ops.residual(x, codebooks, None, levels, mask, kept, channel_dim, *need, backend)
    )


def _ends(rows: int) -> Tensor:
    """For each row a number of levels, none of them and more than there are included."""
    return torch.arange(rows) * 5 % (LEVELS + 3) - 1


def _per_code(rows: Tensor, indices: Tensor, k: int) -> Tensor:
    """float64 sums of (L, N, D) rows by (N, L) indices; -1 is left out."""
    out = torch.zeros(len(rows), k + 1, rows.shape[2], dtype=torch.float64)
    for level, values in enumerate(rows.double()):
        out[level].index_add_(0, indices[:, level] % (k + 1), values)
    return out[:, :k]


def _assert_agrees_with_the_oracle(
    got: Result,
    x: Tensor,
    codebooks: Tensor,
    mask: Tensor | None,
    channel_dim: int,
    kept: Tensor | None = None,
) -> None:
    matrix, k = cases.as_matrix(x, channel_dim), codebooks.shape[1]
    indices, left = oracle.residual(matrix, codebooks)
    keep = torch.ones(len(matrix), dtype=torch.bool) if mask is None else mask.reshape(-1)
    taking = keep[:, None].expand(indices.shape)
    if kept is not None:
        taking = taking & (kept.reshape(-1, 1) > torch.arange(len(codebooks)))
    indices = torch.where(taking, indices, -1)
    positions = x.movedim(channel_dim, -1).shape[:-1]
    assert got.indices.shape == (*positions, len(codebooks))
    assert torch.equal(got.indices.reshape(indices.shape), indices)

    total = torch.full_like(left[0], -0.0)
    for level, codes in enumerate(codebooks.float()):
        added = total + codes[indices[:, level].clamp(min=0)]
        total = torch.where(taking[:, level, None], added, total)
    total = torch.where(taking[:, :1], total, 0.0)
    expected = torch.where(keep[:, None], total, matrix.float())
    quantized = cases.as_matrix(got.quantized, channel_dim)
    assert torch.equal(quantized.view(torch.int32), expected.view(torch.int32))

    left[1:] = torch.where(taking.T[..., None], left[1:], 0.0)
    counts = torch.stack([torch.bincount(c[c >= 0], minlength=k) for c in indices.T])
    assert torch.equal(got.counts, counts)
    for sums, rows in ((got.sums, left[:-1]), (got.code_remainders, left[1:])):
        assert_summed_in_float64(
            sums, _per_code(rows, indices, k), _per_code(rows.abs(), indices, k)
        )
    eps = torch.finfo(torch.float32).eps
    remainder = cases.as_matrix(got.remainder, channel_dim).double()
    magnitude = left[1:].double().abs().sum(dim=0)
    exact = left[1:].double().sum(dim=0)
    assert ((remainder - exact).abs() <= len(codebooks) * eps / 2 * magnitude).all()
    chosen = codebooks.double().gather(1, indices.T.clamp(min=0)[..., None].expand_as(left[1:]))
    errors = torch.where(taking.T[..., None], left[:-1].double() - chosen, 0.0).square()
    mse = errors.sum(dim=(1, 2)) / max(int(keep.sum()) * x.shape[channel_dim], 1)
    quantum = 2.0**-149  # mse may be a denormal
    assert ((got.mse.double() - mse).abs() <= eps * mse + quantum).all()


@pytest.mark.parametrize("masked", [False, True], ids=["all rows", "masked"])
@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_every_layout_agrees_with_the_oracle(
    layout: str, dtype: torch.dtype, shared: bool, masked: bool, backend: str
) -> None:
    rows, codebook = cases.batch()
    x, channel = cases.LAYOUTS[layout](rows.to(dtype))
    channel %= x.ndim
    books = codebook[None] if shared else cases.codebooks(codebook, LEVELS)
    positions = x.movedim(channel, -1).shape[:-1]
    mask = (torch.arange(positions.numel()) % 3 != 1).reshape(positions) if masked else None
    got = _residual(x, books, backend, mask, LEVELS, channel)
    assert got.quantized.dtype == torch.float32
    _assert_agrees_with_the_oracle(got, x, books.expand(LEVELS, -1, -1), mask, channel)


@pytest.mark.parametrize("masked", [False, True], ids=["all rows", "masked"])
@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize("layout", ["matrix", "NCHW", "BTD", "six dimensions", "no rows"])
def test_rows_that_are_kept_for_fewer_levels_agree_with_the_oracle(
    layout: str, shared: bool, masked: bool, backend: str
) -> None:
    rows, codebook = cases.batch()
    x, channel = cases.LAYOUTS[layout](rows)
    channel %= x.ndim
    books = codebook[None] if shared else cases.codebooks(codebook, LEVELS)
    positions = x.movedim(channel, -1).shape[:-1]
    kept = _ends(positions.numel()).reshape(positions)
    mask = (torch.arange(positions.numel()) % 3 != 1).reshape(positions) if masked else None
    got = _residual(x, books, backend, mask, LEVELS, channel, kept)
    _assert_agrees_with_the_oracle(got, x, books.expand(LEVELS, -1, -1), mask, channel, kept)


@pytest.mark.parametrize("levels", [1, 2, 5])
@pytest.mark.parametrize(
    "name",
    [
        "gaussian",
        "photo 2x2x3 PCA 8",
        "shifted by 1000",
        "scale 1e-20",
        "scale 1e18",
        "integer grid",
        "half duplicated",
        "all equal",
        "x on codes",
        "zeros",
        "float32 denormals",
        "non-finite codes",
    ],
)
def test_every_level_is_as_exact_as_the_search(name: str, levels: int, backend: str) -> None:
    x, codebook = cases.search(name)
    books = cases.codebooks(codebook[:300], levels)
    got = _residual(x, books, backend)
    _assert_agrees_with_the_oracle(got, x, books, None, 1)


@pytest.mark.parametrize("shape", cases.SHAPES, ids=str)
def test_odd_shapes_agree_with_the_oracle(shape: tuple[int, int, int], backend: str) -> None:
    n, k, d = shape
    x, codebook = cases.gaussian(n, min(k, 300), d)
    books = cases.codebooks(codebook, 2)
    _assert_agrees_with_the_oracle(_residual(x, books, backend), x, books, None, 1)


def test_codebooks_may_be_half_precision_and_strided(backend: str) -> None:
    x, codebook = cases.batch()
    books = cases.codebooks(codebook, LEVELS).half().transpose(0, 1).contiguous().transpose(0, 1)
    _assert_agrees_with_the_oracle(_residual(x, books, backend), x, books, None, 1)


@pytest.fixture(params=isa_levels())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    core = native_core()
    before = core.isa()
    core.force_isa(request.param)
    yield request.param
    core.force_isa(before)


@pytest.mark.parametrize("ended", [False, True], ids=["all levels", "kept"])
@pytest.mark.parametrize("masked", [False, True], ids=["all rows", "masked"])
def test_levels_of_the_instruction_set_return_the_bits_of_the_reference(
    isa: str, masked: bool, ended: bool
) -> None:
    x, codebook = cases.gaussian(1000, 61, 13)
    x[::17, 2], x[5::31, 0] = torch.nan, torch.inf
    books = cases.codebooks(codebook, LEVELS)
    mask = torch.arange(1000) % 7 != 2 if masked else None
    kept = _ends(1000) if ended else None
    results = [_residual(x, books, name, mask, kept=kept) for name in ("native", "reference")]
    for name, got, expected in zip(Result._fields, *results, strict=True):
        if name == "mse" and not masked:
            assert got.isnan().all()
        assert torch.equal(got.isnan(), expected.isnan()), name
        assert torch.equal(got.nan_to_num(0.0), expected.nan_to_num(0.0)), name


@pytest.mark.usefixtures("two_threads")
def test_thread_count_changes_no_bit(backend: str) -> None:
    x, codebook = cases.search("photo 2x2x3")
    x = x.repeat(40_000 // len(x), 1)
    books = cases.codebooks(codebook[:4], LEVELS)
    results = []
    for threads in (1, 2, 3, 1):
        torch.set_num_threads(threads)
        results.append(_residual(x, books, backend))
    for other in results[1:]:
        for first, again in zip(results[0], other, strict=True):
            assert torch.equal(first, again)


def test_nonfinite_rows_are_nan_and_counted_nowhere(backend: str) -> None:
    x, codebook = cases.batch()
    x[3, 2], x[8, 0] = torch.nan, -torch.inf
    books = cases.codebooks(codebook, LEVELS)
    got = _residual(x, books, backend)
    bad = torch.tensor([3, 8])
    good = torch.ones(24, dtype=torch.bool).index_fill_(0, bad, False)
    alone = _residual(x[good], books, backend)
    assert got.quantized[bad].isnan().all()
    assert got.remainder[bad].isnan().all()
    assert not got.indices[bad].any()
    assert got.mse.isnan().all()
    assert torch.equal(got.quantized[good], alone.quantized)
    assert torch.equal(got.counts, alone.counts)
    assert torch.equal(got.sums, alone.sums)
    # The gradient of the code that stands for them shows them, as in vq_backward.
    assert got.code_remainders[:, 0].isnan().all()
    assert torch.equal(got.code_remainders[:, 1:], alone.code_remainders[:, 1:])


def test_a_level_that_no_nonfinite_row_reaches_is_finite(backend: str) -> None:
    x, codebook = cases.batch()
    x[3, 2] = torch.nan
    kept = torch.full((24,), LEVELS)
    kept[3] = 1
    got = _residual(x, cases.codebooks(codebook, LEVELS), backend, kept=kept)
    assert got.quantized[3].isnan().all()
    for values in (got.mse, got.code_remainders[:, 0]):
        assert values[0].isnan().all()
        assert values[1:].isfinite().all()
    assert got.indices[3].tolist() == [0, -1, -1]


def test_a_subtraction_that_overflows_ends_the_row(backend: str) -> None:
    """From the next level on the row is as one that was never finite."""
    x = torch.tensor([[3e38, 0.0], [1.0, 0.0]])
    books = torch.tensor([[[-1e38, 0.0]], [[0.0, 0.0]], [[1.0, 0.0]]])
    got = _residual(x, books, backend)
    assert got.counts.tolist() == [[2], [1], [1]]
    assert got.indices.tolist() == [[0, 0, 0]] * 2
    assert got.quantized[0].isnan().all()
    assert got.quantized[1].isfinite().all()
    assert got.sums[0].isfinite().all()
    assert torch.equal(got.sums[1], torch.tensor([[1e38, 0.0]]))


def test_masked_nonfinite_rows_leave_no_trace(backend: str) -> None:
    x, codebook = cases.batch()
    x[3], x[8, 0] = torch.nan, torch.inf
    mask = x.isfinite().all(dim=1)
    got = _residual(x, cases.codebooks(codebook, LEVELS), backend, mask)
    assert torch.equal(got.quantized[~mask].nan_to_num(7.0), x[~mask].nan_to_num(7.0))
    assert (got.indices[~mask] == -1).all()
    assert not got.remainder[~mask].any()
    assert got.counts.sum(dim=1).tolist() == [22] * LEVELS
    for value in (got.mse, got.sums, got.code_remainders, got.quantized[mask]):
        assert value.isfinite().all()


@pytest.mark.parametrize("masked", [False, True], ids=["empty", "fully masked"])
def test_no_valid_row_gives_zeros(masked: bool, backend: str) -> None:
    x, codebook = cases.batch()
    x, mask = (x, torch.zeros(24, dtype=torch.bool)) if masked else (x[:0], None)
    got = _residual(x, cases.codebooks(codebook, LEVELS), backend, mask)
    assert torch.equal(got.quantized, x)
    assert (got.indices == -1).all()
    for value in (got.mse, got.counts, got.sums, got.remainder, got.code_remainders):
        assert not value.any()


def test_only_what_is_asked_for_is_made(backend: str) -> None:
    x, codebook = cases.batch()
    books = cases.codebooks(codebook, LEVELS)
    full = _residual(x, books, backend)
    bare = Result(
        *ops.residual(x, books, None, LEVELS, None, None, 1, False, False, False, backend)
    )
    assert bare.sums.shape == bare.code_remainders.shape == (0, 11, 6)
    assert bare.remainder.shape == (0,)
    for name in ("quantized", "indices", "mse", "counts"):
        assert torch.equal(getattr(bare, name), getattr(full, name))


def test_a_code_sum_does_not_cancel_where_codes_are_large(backend: str) -> None:
    """sum(r - c) is small beside sum(r) and count * c: it must not be their difference."""
    x, codebook = cases.search("shifted by 1000")
    got = _residual(x, codebook[None], backend)
    indices, left = oracle.residual(x, codebook[None])
    exact = _per_code(left[1:], indices, len(codebook))
    eps = torch.finfo(torch.float32).eps
    assert ((got.code_remainders.double() - exact).abs() <= eps * exact.abs()).all()
