"""residual_codes: level by level and all levels in one op, the same codes."""

from __future__ import annotations

import pytest
import torch
from compat.agreement import assert_same_codes

from vqkernels.compat import _residual_codes
from vqkernels.compat._residual_codes import residual_codes

D = 8
SIZES = {"level by level": _residual_codes._FUSED_ROWS // 2 - 1, "one op": 300}


@pytest.mark.parametrize("frames", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("channel_dim", [1, -1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_level_takes_the_nearest_code_of_what_is_left(
    frames: int, channel_dim: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, D, frames).to(dtype)
    books = [(torch.randn(32, D) / (1 + level)).to(dtype) for level in range(3)]
    given = x if channel_dim == 1 else x.transpose(1, 2)
    codes = residual_codes(given, books, channel_dim)
    assert codes.is_contiguous()
    assert codes.shape == (3, 2, frames)
    left = x
    for found, book in zip(codes, books, strict=True):
        rows = left.transpose(1, 2).reshape(-1, D)
        assert_same_codes(found, found, rows, book)
        left = left - book[found].transpose(1, 2)


@pytest.mark.parametrize("frames", SIZES.values(), ids=SIZES)
def test_a_row_that_is_not_finite_has_index_0_at_every_level(frames: int) -> None:
    torch.manual_seed(0)
    x, books = torch.randn(2, D, frames), [torch.randn(32, D) for _ in range(3)]
    x[1, 3, 5] = torch.nan
    assert not residual_codes(x, books, 1)[:, 1, 5].any()


def test_the_two_ways_meet_at_one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x, books = torch.randn(3, D, 100), [torch.randn(64, D) for _ in range(4)]
    found = []
    for rows in (1, 1_000_000):
        monkeypatch.setattr(_residual_codes, "_FUSED_ROWS", rows)
        found.append(residual_codes(x, books, 1))
    assert torch.equal(*found)


def test_no_gradient_and_no_level_are_refused_or_ignored() -> None:
    x, book = torch.randn(2, D, 300, requires_grad=True), torch.randn(32, D, requires_grad=True)
    assert not residual_codes(x, [book, book], 1).requires_grad
    with pytest.raises(ValueError, match="number of quantizers must be at least 1, got 0"):
        residual_codes(x, [], 1)
    with pytest.raises(ValueError, match="x must have"):
        residual_codes(torch.randn(2, D + 1, 300), [book, book], 1)
