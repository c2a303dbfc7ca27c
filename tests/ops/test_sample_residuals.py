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
    got, found = ops.sample_residuals(matrix, books, indices, mask, None, CLOCK, count, 0, 1)
    for level in range(LEVELS):
        # sample_rows on the residuals of a level picks by position alone.
        expected, wanted = ops.sample_rows(left[level], mask, CLOCK, count, 0, "l2", 1)
        assert torch.equal(got[level], expected)
        assert found[level] == wanted
    positions = x.movedim(channel, -1).shape[:-1]
    shaped = indices.reshape(*positions, LEVELS)
    there = None if mask is None else mask.reshape(positions)
    strided, _ = ops.sample_residuals(x, books, shaped, there, None, CLOCK, count, 0, channel)
    assert torch.equal(strided, got)


@pytest.mark.parametrize("masked", [False, True], ids=["all rows", "masked"])
@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize("count", [7, 60])
def test_a_level_gets_those_of_the_rows_that_reach_it(
    count: int, shared: bool, masked: bool
) -> None:
    rows, codebook = cases.batch()
    rows[5, 1] = torch.nan
    x, channel = cases.LAYOUTS["NCHW"](rows)
    books = codebook[None] if shared else cases.codebooks(codebook, LEVELS)
    kept = torch.arange(24) * 5 % 8 // 3  # nothing reaches the last level
    mask = torch.arange(24) % 3 != 1 if masked else None
    indices, left = oracle.residual(rows, books.expand(LEVELS, -1, -1))
    reached = (kept[:, None] > torch.arange(LEVELS)) & (True if mask is None else mask[:, None])
    indices = torch.where(reached, indices, -1).reshape(2, 3, 4, LEVELS)
    shaped = None if mask is None else mask.reshape(2, 3, 4)
    options = (CLOCK, count, 0, channel)
    drawn, usable = ops.sample_residuals(x, books, indices, shaped, None, *options)
    ends = kept.reshape(2, 3, 4)
    got, found = ops.sample_residuals(x, books, indices, shaped, ends, *options)
    assert found[0] >= found[1] > found[2] == 0
    for level in range(2):
        alive = left[level][reached[:, level]]
        picked = [row for row in drawn[level, : usable[0]] if (row == alive).all(dim=1).any()]
        turns = torch.stack(picked)[torch.arange(count) % len(picked)]
        assert torch.equal(got[level], turns)


def test_an_empty_batch_has_no_candidates() -> None:
    x, codebook = cases.batch()
    indices = torch.empty(0, LEVELS, dtype=torch.int64)
    rows, found = ops.sample_residuals(x[:0], codebook[None], indices, None, None, CLOCK, 4, 0, 1)
    assert found.tolist() == [0] * LEVELS
    assert rows.shape == (LEVELS, 4, 6)
