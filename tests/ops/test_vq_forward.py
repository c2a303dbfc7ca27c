"""The fused forward: what follows the search, against float64."""

from __future__ import annotations

import cases
import oracle
import pytest
import textbook
import torch
from budget import assert_summed_in_float64
from torch import Tensor

from vqkernels import ops


def _forward(
    x: Tensor, codes: Tensor, mask: Tensor | None, metric: str, channel_dim: int, backend: str
) -> tuple[Tensor, ...]:
    return ops.vq_forward(x, codes, None, mask, metric, channel_dim, True, backend)


def _every_third_masked(positions: torch.Size) -> Tensor:
    keep = torch.arange(max(positions.numel(), 0)) % 3 != 1
    return keep.reshape(positions)


@pytest.mark.parametrize("masked", [False, True], ids=["all rows", "masked"])
@pytest.mark.parametrize("metric", cases.METRICS)
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_agrees_with_the_textbook_in_float64(
    layout: str, dtype: torch.dtype, metric: str, masked: bool, backend: str
) -> None:
    rows, codebook = cases.batch()
    x, channel_dim = cases.LAYOUTS[layout](rows.to(dtype))
    channel_dim %= x.ndim
    codes = ops.normalize_codes(codebook)[0] if metric == "cosine" else codebook
    positions = x.movedim(channel_dim, -1).shape[:-1]
    mask = _every_third_masked(positions) if masked else None
    quantized, indices, mse, counts, sums = _forward(x, codes, mask, metric, channel_dim, backend)

    matrix = cases.as_matrix(x, channel_dim)
    expected_indices = torch.from_numpy(oracle.nearest_code(matrix, codebook, metric)[0])
    keep = torch.ones(positions, dtype=torch.bool) if mask is None else mask
    expected = textbook.quantize(
        matrix.double(),
        codebook.double(),
        metric=metric,
        mask=keep.reshape(-1),
        indices=expected_indices,
    )
    assert torch.equal(indices.reshape(-1), expected.indices)
    assert indices.shape == positions
    assert torch.equal(counts, expected.counts.long())

    chosen = torch.where(keep.reshape(-1, 1), codes[expected_indices], matrix.float())
    assert quantized.shape == x.shape
    assert torch.equal(cases.as_matrix(quantized, channel_dim), chosen)
    assert_summed_in_float64(sums, expected.sums, _magnitude(matrix, expected.indices, codes))
    # 4 eps: the codes of the cosine metric are rounded to float32 before the error is taken.
    eps = torch.finfo(torch.float32).eps * (4 if metric == "cosine" else 1)
    assert abs(float(mse) - float(expected.mse)) <= eps * float(expected.mse)


def _magnitude(matrix: Tensor, indices: Tensor, codes: Tensor) -> Tensor:
    out = torch.zeros(len(codes) + 1, codes.shape[1], dtype=torch.float64)
    return out.index_add_(0, indices % (len(codes) + 1), matrix.double().abs())[:-1]


def test_without_statistics_no_sums_are_made(backend: str) -> None:
    x, codebook = cases.batch()
    *_, counts, sums = ops.vq_forward(x, codebook, None, None, "l2", 1, False, backend)
    assert sums.shape == (0, 6)
    assert counts.sum() == 24


def test_nonfinite_rows_are_nan_and_counted_nowhere(backend: str) -> None:
    x, codebook = cases.batch()
    x[3, 2], x[8, 0] = torch.nan, -torch.inf
    quantized, indices, mse, counts, sums = _forward(x, codebook, None, "l2", 1, backend)
    bad = torch.tensor([3, 8])
    assert quantized[bad].isnan().all()
    assert indices[bad].tolist() == [0, 0]
    assert mse.isnan()
    assert counts.sum() == 22
    assert sums.isfinite().all()
    good = torch.ones(24, dtype=torch.bool).index_fill_(0, bad, False)
    alone = _forward(x[good], codebook, None, "l2", 1, backend)
    assert torch.equal(quantized[good], alone[0])
    assert torch.equal(counts, alone[3])
    assert torch.equal(sums, alone[4])


@pytest.mark.parametrize("metric", cases.METRICS)
def test_masked_nonfinite_rows_leave_no_trace(metric: str, backend: str) -> None:
    x, codebook = cases.batch()
    x[3], x[8, 0] = torch.nan, torch.inf
    mask = x.isfinite().all(dim=1)
    quantized, indices, mse, counts, _ = _forward(x, codebook, mask, metric, 1, backend)
    assert torch.equal(quantized[~mask].nan_to_num(7.0), x[~mask].nan_to_num(7.0))
    assert indices[~mask].tolist() == [-1, -1]
    assert mse.isfinite()
    assert counts.sum() == 22


@pytest.mark.parametrize("mask", [None, torch.zeros(0, dtype=torch.bool)], ids=["none", "empty"])
def test_an_empty_batch_gives_zeros(mask: Tensor | None, backend: str) -> None:
    _, codebook = cases.batch()
    quantized, indices, mse, counts, sums = _forward(
        torch.empty(0, 6), codebook, mask, "l2", 1, backend
    )
    assert quantized.shape == (0, 6)
    assert indices.shape == (0,)
    assert mse == 0
    assert not counts.any()
    assert not sums.any()


def test_a_fully_masked_batch_gives_zeros(backend: str) -> None:
    x, codebook = cases.batch()
    quantized, indices, mse, counts, sums = _forward(
        x, codebook, torch.zeros(24, dtype=torch.bool), "l2", 1, backend
    )
    assert torch.equal(quantized, x)
    assert (indices == -1).all()
    assert mse == 0
    assert not counts.any()
    assert not sums.any()


def test_one_hot_code_takes_all_rows_without_losing_bits(backend: str) -> None:
    """8000 equal addends: float32 accumulation would drift, float64 does not."""
    x = torch.full((8000, 3), 0.1)
    codebook = torch.tensor([[5.0] * 3, [0.0] * 3, [9.0] * 3])
    *_, counts, sums = _forward(x, codebook, None, "l2", 1, backend)
    assert counts.tolist() == [0, 8000, 0]
    exact = x[0].double() * 8000
    assert torch.equal(sums[1], exact.float())
