"""The step for given codes: where they are those of the search, the results of vq_forward."""

from __future__ import annotations

import cases
import pytest
import textbook
import torch
from torch import Tensor

import vqkernels as vq
from vqkernels import ops


def _chosen(positions: torch.Size, k: int) -> Tensor:
    """Codes that no search would take, every fifth one missing."""
    g = cases.generator(30)
    chosen = torch.randint(0, k, positions, generator=g)
    return torch.where(torch.arange(positions.numel()).reshape(positions) % 5 == 2, -1, chosen)


@pytest.mark.parametrize("masked", [False, True], ids=["all rows", "masked"])
@pytest.mark.parametrize("metric", cases.METRICS)
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
@pytest.mark.parametrize("layout", cases.LAYOUTS)
def test_found_codes_give_the_bits_of_the_searching_step(
    layout: str, dtype: torch.dtype, metric: str, masked: bool, backend: str
) -> None:
    rows, codebook = cases.batch()
    x, channel_dim = cases.LAYOUTS[layout](rows.to(dtype))
    channel_dim %= x.ndim
    codes = ops.normalize_codes(codebook)[0] if metric == "cosine" else codebook
    found = vq.nearest_code(x, codes, channel_dim=channel_dim, metric=metric).indices
    mask = (torch.arange(found.numel()) % 3 != 1).reshape(found.shape) if masked else None
    options = (mask, metric, channel_dim, True, backend)
    expected = ops.vq_forward(x, codes, None, *options)
    for got, value in zip(ops.vq_assigned(x, codes, found, *options), expected, strict=True):
        assert torch.equal(got, value)


@pytest.mark.parametrize("metric", cases.METRICS)
def test_codes_that_are_not_the_nearest_agree_with_the_textbook(metric: str, backend: str) -> None:
    x, codebook = cases.batch()
    codes = ops.normalize_codes(codebook)[0] if metric == "cosine" else codebook
    chosen = _chosen(torch.Size([24]), len(codes))
    quantized, indices, mse, counts, sums = ops.vq_assigned(
        x, codes, chosen.to(torch.int32), None, metric, 1, True, backend
    )
    expected = textbook.quantize(
        x.double(), codebook.double(), metric=metric, mask=chosen >= 0, indices=chosen.clamp(min=0)
    )
    assert torch.equal(indices, chosen)
    assert torch.equal(quantized, torch.where((chosen >= 0)[:, None], codes[chosen], x))
    assert torch.equal(counts, expected.counts.long())
    eps = torch.finfo(torch.float32).eps * (4 if metric == "cosine" else 1)
    assert abs(float(mse) - float(expected.mse)) <= eps * float(expected.mse)
    torch.testing.assert_close(sums.double(), expected.sums, rtol=1e-6, atol=0)


def test_nonfinite_rows_are_nan_and_counted_nowhere(backend: str) -> None:
    x, codebook = cases.batch()
    x[3, 2], x[8, 0] = torch.nan, -torch.inf
    chosen = torch.full((24,), 4)
    quantized, indices, mse, counts, _ = ops.vq_assigned(
        x, codebook, chosen, None, "l2", 1, True, backend
    )
    assert quantized[[3, 8]].isnan().all()
    assert torch.equal(indices, chosen)
    assert mse.isnan()
    assert counts.tolist() == [22 if code == 4 else 0 for code in range(11)]


@pytest.mark.parametrize("bad", [11, -2])
def test_an_index_out_of_range_is_refused_on_the_cpu(bad: int, backend: str) -> None:
    x, codebook = cases.batch()
    with pytest.raises(ValueError, match=rf"indices must be in \[-1, 10\], got {bad}"):
        ops.vq_assigned(x, codebook, torch.full((24,), bad), None, "l2", 1, True, backend)


def test_an_empty_batch_gives_zeros(backend: str) -> None:
    _, codebook = cases.batch()
    none = torch.empty(0, dtype=torch.int64)
    results = ops.vq_assigned(torch.empty(0, 6), codebook, none, None, "l2", 1, True, backend)
    assert results[0].shape == (0, 6)
    assert not any(value.any() for value in results[2:])
