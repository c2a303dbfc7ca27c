"""Counts and sums of the rows per code."""

from __future__ import annotations

import cases
import pytest
import torch
from budget import assert_summed_in_float64
from torch import Tensor

from vqkernels import ops


def _code_sums(
    x: Tensor, indices: Tensor, k: int, backend: str, mask: Tensor | None = None, **options: object
) -> tuple[Tensor, Tensor]:
    metric, channel_dim = options.get("metric", "l2"), options.get("channel_dim", 1)
    return ops.code_sums(x, indices, k, mask, metric, channel_dim, backend)


def _expected(rows: Tensor, indices: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Counts, sums and sums of absolute values by one-hot matrices in float64."""
    one_hot = torch.nn.functional.one_hot(indices[indices >= 0], k).double()
    rows = rows.double()[indices >= 0]
    return one_hot.sum(dim=0).long(), one_hot.T @ rows, one_hot.T @ rows.abs()


@pytest.mark.parametrize("metric", cases.METRICS)
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_every_layout_agrees_with_one_hot_in_float64(
    layout: str, dtype: torch.dtype, metric: str, backend: str
) -> None:
    x, channel_dim = cases.LAYOUTS[layout](cases.batch()[0].to(dtype))
    positions = x.movedim(channel_dim, -1).shape[:-1]
    indices = torch.randint(-1, 7, positions, generator=cases.generator(1))
    mask = torch.rand(positions, generator=cases.generator(2)) < 0.7
    channel_dim %= x.ndim
    counts, sums = _code_sums(x, indices, 7, backend, mask, metric=metric, channel_dim=channel_dim)
    rows = cases.as_matrix(x, channel_dim).double()
    if metric == "cosine":
        rows = torch.nn.functional.normalize(rows, dim=1)
    expected = _expected(rows, torch.where(mask, indices, -1).reshape(-1), 7)
    assert torch.equal(counts, expected[0])
    assert_summed_in_float64(sums, *expected[1:])


@pytest.mark.parametrize("shape", cases.SHAPES, ids=str)
def test_odd_shapes(shape: tuple[int, int, int], backend: str) -> None:
    n, k, d = shape
    x, _ = cases.gaussian(n, k, d)
    indices = torch.randint(0, k, (n,), generator=cases.generator(3))
    counts, sums = _code_sums(x, indices, k, backend)
    expected = _expected(x, indices, k)
    assert torch.equal(counts, expected[0])
    assert_summed_in_float64(sums, *expected[1:])


def test_one_hot_code_and_runs_across_block_boundaries(backend: str) -> None:
    """Runs of one code that are longer than, equal to and one past any block of 256 rows."""
    lengths = [5000, 1, 255, 256, 257, 0, 512]
    indices = torch.repeat_interleave(torch.arange(7), torch.tensor(lengths))
    indices = indices[torch.randperm(len(indices), generator=cases.generator(4))]
    x = torch.randn(len(indices), 5, generator=cases.generator(5))
    counts, sums = _code_sums(x, indices, 7, backend)
    assert counts.tolist() == lengths
    assert_summed_in_float64(sums, *_expected(x, indices, 7)[1:])


def test_more_codes_than_int16_counts(backend: str) -> None:
    x, _ = cases.gaussian(50, 1, 3)
    indices = torch.randint(0, 33_000, (50,), generator=cases.generator(6))
    indices[:3] = torch.tensor([32_767, 32_768, 32_999])
    counts, sums = _code_sums(x, indices, 33_000, backend)
    expected = _expected(x, indices, 33_000)
    assert torch.equal(counts, expected[0])
    assert_summed_in_float64(sums, *expected[1:])


@pytest.mark.parametrize("metric", cases.METRICS)
def test_an_order_that_varies_may_be_permitted(metric: str, backend: str) -> None:
    """float32 sums of n addends: each addition rounds once."""
    x, _ = cases.batch()
    indices = torch.arange(24) % 5 - 1
    x[3, 1] = torch.nan
    counts, sums = ops.code_sums(x, indices, 4, None, metric, 1, backend, deterministic=False)
    rows = torch.nn.functional.normalize(x.double(), dim=1) if metric == "cosine" else x
    kept = torch.where(x.isfinite().all(dim=1), indices, -1)
    expected = _expected(rows, kept, 4)
    assert torch.equal(counts, expected[0])
    allowed = 24 * torch.finfo(torch.float32).eps * expected[2]
    assert ((sums.double() - expected[1]).abs() <= allowed).all()


def test_nonfinite_rows_count_nowhere(backend: str) -> None:
    x, _ = cases.batch()
    indices = torch.arange(24) % 7
    x[3, 1], x[9, 0], x[10, 5] = torch.nan, torch.inf, -torch.inf
    counts, sums = _code_sums(x, indices, 7, backend)
    expected = _expected(x, torch.where(x.isfinite().all(dim=1), indices, -1), 7)
    assert torch.equal(counts, expected[0])
    assert_summed_in_float64(sums, *expected[1:])


def test_cancellation_is_not_lost(backend: str) -> None:
    x = torch.tensor([[1e8], [1.0], [-1e8], [1.0]])
    _, sums = _code_sums(x, torch.zeros(4, dtype=torch.int64), 1, backend)
    assert sums.item() == 2.0


@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int16, torch.uint8], ids=str)
def test_every_integer_dtype_is_read(index_dtype: torch.dtype, backend: str) -> None:
    x, _ = cases.batch()
    indices = (torch.arange(24) % 7).to(index_dtype)
    counts, _ = _code_sums(x, indices, 7, backend)
    assert torch.equal(counts, torch.bincount(indices.long(), minlength=7))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("bad", [-2, 7, 2**40])
def test_an_index_out_of_range_is_refused(bad: int, masked: bool, backend: str) -> None:
    """Also where the mask is False: the index is wrong, whether it counts or not."""
    x, _ = cases.batch()
    indices = torch.zeros(24, dtype=torch.int64)
    indices[5] = bad
    mask = torch.arange(24) != 5 if masked else None
    with pytest.raises(ValueError, match=rf"indices must be in \[-1, 6\], got {bad}$"):
        _code_sums(x, indices, 7, backend, mask)
