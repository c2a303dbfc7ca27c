"""Candidates for the revival of each level: residuals of the rows that sample_rows picks."""

from __future__ import annotations

import cases
import oracle
import pytest
import torch

from vqkernels import ops

CLOCK, LEVELS = torch.tensor(3), 3


@pytest.mark.parametrize("masked", [False, True], ids=["all rows", "masked"])
@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize("count", [7, 60])
@pytest.mark.parametrize("layout", ["matrix", "NCHW", "BTD", "six dimensions", "channels first"])
def test_every_level_gets_the_same_rows_as_it_met_them(
    layout: str, count: int, shared: bool, masked: bool
) -> None:
    rows, codebook = cases.batch()
    rows[5, 1] = torch.nan
    x, channel = cases.LAYOUTS[layout](rows)
    channel %= x.ndim
    books = codebook[None] if shared else cases.codebooks(codebook, LEVELS)
    matrix = cases.as_matrix(x, channel)
    indices, left = oracle.residual(matrix, books.expand(LEVELS, -1, -1))
    mask = torch.arange(24) % 3 != 1 if masked else None
    got, found = ops.sample_residuals(matrix, books, indices, mask, CLOCK, count, 0, 1)
    for level in range(LEVELS):
        # sample_rows on the residuals of a level picks by position alone.
        expected, wanted = ops.sample_rows(left[level], mask, CLOCK, count, 0, "l2", 1)
        assert torch.equal(got[level], expected)
        assert found == wanted
    positions = x.movedim(channel, -1).shape[:-1]
    shaped = indices.reshape(*positions, LEVELS)
    kept = None if mask is None else mask.reshape(positions)
    strided, _ = ops.sample_residuals(x, books, shaped, kept, CLOCK, count, 0, channel)
    assert torch.equal(strided, got)


def test_an_empty_batch_has_no_candidates() -> None:
    x, codebook = cases.batch()
    indices = torch.empty(0, LEVELS, dtype=torch.int64)
    rows, found = ops.sample_residuals(x[:0], codebook[None], indices, None, CLOCK, 4, 0, 1)
    assert found == 0
    assert rows.shape == (LEVELS, 4, 6)
