"""A list of rows that is made and read on the device: what one kernel leaves to the next."""

from __future__ import annotations

import dataclasses

import torch
import triton
import triton.language as tl
from torch import Tensor

from vqkernels.backends.triton.exact import NO_CODE


@dataclasses.dataclass(frozen=True)
class RowList:
    """Some of N rows, with the best that is known of each.

    Attributes:
        count: () int32, how many there are.
        rows: (N,) int64, their numbers, in any order.
        scores: (N,) float64, the best score so far; infinite without one.
        codes: (N,) int64, its code.
        bounds: (N,) float64, below which no group of codes has to be looked at.
    """

    count: Tensor
    rows: Tensor
    scores: Tensor
    codes: Tensor
    bounds: Tensor

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What ``append`` takes, in its order."""
        return self.count, self.rows, self.scores, self.codes, self.bounds


def no_rows(count: Tensor, num_rows: int) -> RowList:
    """An empty list with room for ``num_rows``; ``count`` is () int32 and holds 0."""

    def room(dtype: torch.dtype) -> Tensor:
        return count.new_empty(num_rows, dtype=dtype)

    return RowList(
        count, room(torch.int64), room(torch.float64), room(torch.int64), room(torch.float64)
    )


def every_row(count: Tensor, num_rows: int) -> RowList:
    """All rows, of which nothing is known."""
    rows = no_rows(count, num_rows)
    count.fill_(num_rows)
    torch.arange(num_rows, out=rows.rows)
    rows.scores.fill_(torch.inf)
    rows.codes.fill_(NO_CODE.value)
    return rows


@triton.jit
def append(count_ptr, rows_ptr, scores_ptr, codes_ptr, bounds_ptr, row, score, code, bound, taken):
    """Adds the rows that are ``taken``, all (ROWS,)."""
    places = taken.to(tl.int32)
    place = tl.atomic_add(count_ptr, tl.sum(places)) + tl.cumsum(places, axis=0) - 1
    tl.store(rows_ptr + place, row, mask=taken)
    tl.store(scores_ptr + place, score, mask=taken)
    tl.store(codes_ptr + place, code, mask=taken)
    tl.store(bounds_ptr + place, bound, mask=taken)
