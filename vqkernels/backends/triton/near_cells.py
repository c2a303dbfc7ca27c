"""Which cells a row is looked for in: that of the nearest centre, and those within reach.

Both kernels go over all pairs of rows and centres; nothing of that size leaves them. A row has
room for ``SLOTS`` cells. One with more, or without a nearest centre, is left to the dense search.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from vqkernels.backends.triton._layouts import row_layout, row_offsets
from vqkernels.backends.triton.cell_bound import out_of_reach, reach, squares
from vqkernels.backends.triton.cells import Cells
from vqkernels.backends.triton.exact import NO_CODE, common_scale

SLOTS = 16
# Per program. More centres per row make for fewer loads, as far as registers go.
_ROWS = 16
_NEAREST, _IN_REACH = 256, 64


@triton.jit
def _filled(starts_ptr, cell, num_cells):
    """Which cells have codes."""
    real = cell < num_cells
    start = tl.load(starts_ptr + cell, mask=real, other=0)
    return real & (tl.load(starts_ptr + cell + 1, mask=real, other=0) > start)


@triton.jit(do_not_specialize=["first_row", "num_rows", "num_cells"])
def _nearest_centres(
    x_ptr,  # (N, D) through strides
    exponent_ptr,  # (1,) float32
    starts_ptr,  # (G + 1,) int32
    centres_ptr,  # (D, G) float32
    stale_ptr,  # () int32: whether the cells are those of another codebook
    homes_ptr,  # (n,) int16 or int32, out: the cell; G without one
    squares_ptr,  # (n,) float32, out: |x - m|^2, scaled
    scores_ptr,  # (n,) float64, out: infinite
    codes_ptr,  # (n,) int64, out: NO_CODE
    first_row,
    num_rows,
    num_cells,
    dim,
    size1,
    size2,
    size3,
    stride0,
    stride1,
    stride2,
    stride3,
    dim_stride,
    ROWS: tl.constexpr,
    CENTRES: tl.constexpr,
):
    place = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = place < num_rows
    row = tl.cast(first_row, tl.int64) + tl.minimum(place, num_rows - 1)
    x_row = x_ptr + row_offsets(row, size1, size2, size3, stride0, stride1, stride2, stride3)
    scale, _ = common_scale(exponent_ptr, True)
    nearest = tl.full((ROWS,), float("inf"), tl.float32)
    home = tl.zeros((ROWS,), tl.int32) + num_cells
    if tl.load(stale_ptr) == 0:
        for start in range(0, num_cells, CENTRES):
            cell = start + tl.arange(0, CENTRES)
            filled = _filled(starts_ptr, cell, num_cells)
            square = squares(
                x_row, dim_stride, centres_ptr, cell, num_cells, dim, scale,
                ROWS, CENTRES,
            )  # fmt: skip
            square = tl.where(filled[None, :] & (square < float("inf")), square, float("inf"))
            lowest = tl.min(square, axis=1)
            first = tl.min(tl.where(square == lowest[:, None], cell[None, :], num_cells), axis=1)
            home = tl.where(lowest < nearest, first, home)
            nearest = tl.minimum(nearest, lowest)
    tl.store(homes_ptr + place, home, mask=inside)
    tl.store(squares_ptr + place, nearest, mask=inside)
    tl.store(scores_ptr + place, tl.full((ROWS,), float("inf"), tl.float64), mask=inside)
    tl.store(codes_ptr + place, tl.full((ROWS,), NO_CODE, tl.int64), mask=inside)


@triton.jit(do_not_specialize=["first_row", "num_rows", "num_cells"])
def _cells_in_reach(
    x_ptr,  # (N, D) through strides
    exponent_ptr,  # (1,) float32
    starts_ptr,  # (G + 1,) int32
    centres_ptr,  # (D, G) float32
    margins_ptr,  # (G, G) float32
    inverses_ptr,  # (G, G) float32
    homes_ptr,  # (n,) int16 or int32
    squares_ptr,  # (n,) float32
    scores_ptr,  # (n,) float64: of the best code of the home
    cells_ptr,  # (n, SLOTS) int16 or int32, out: the first ones of every row
    counts_ptr,  # (n,) int32, out: how many there are; more than SLOTS without a home
    first_row,
    num_rows,
    num_cells,
    dim,
    size1,
    size2,
    size3,
    stride0,
    stride1,
    stride2,
    stride3,
    dim_stride,
    SLOTS: tl.constexpr,
    ROWS: tl.constexpr,
    CENTRES: tl.constexpr,
):
    place = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = place < num_rows
    row = tl.cast(first_row, tl.int64) + tl.minimum(place, num_rows - 1)
    x_row = x_ptr + row_offsets(row, size1, size2, size3, stride0, stride1, stride2, stride3)
    scale, _ = common_scale(exponent_ptr, True)
    home = tl.load(homes_ptr + place, mask=inside, other=0).to(tl.int32)
    searched = inside & (home < num_cells)
    home_square = tl.load(squares_ptr + place, mask=searched, other=0.0)[:, None]
    reached = reach(tl.load(scores_ptr + place, mask=searched, other=0.0), scale)[:, None]
    table_row = home[:, None].to(tl.int64) * num_cells
    count = tl.where(searched, 0, SLOTS + 1)
    for start in range(0, num_cells, CENTRES):
        cell = start + tl.arange(0, CENTRES)
        filled = _filled(starts_ptr, cell, num_cells)
        square = squares(
            x_row, dim_stride, centres_ptr, cell, num_cells, dim, scale,
            ROWS, CENTRES,
        )  # fmt: skip
        at, real = table_row + cell[None, :], searched[:, None] & filled[None, :]
        margin = tl.load(margins_ptr + at, mask=real, other=0.0)
        inverse = tl.load(inverses_ptr + at, mask=real, other=0.0)
        far = out_of_reach(margin, inverse, square, home_square, reached, dim)
        taken = real & ~far & (cell[None, :] != home[:, None])
        slot = count[:, None] + tl.cumsum(taken.to(tl.int32), axis=1) - 1
        out = cells_ptr + place[:, None] * SLOTS + slot
        tl.store(out, tl.broadcast_to(cell[None, :], (ROWS, CENTRES)), mask=taken & (slot < SLOTS))
        count += tl.sum(taken.to(tl.int32), axis=1)
    tl.store(counts_ptr + place, count, mask=inside)


class Homes(NamedTuple):
    """The cell of the nearest centre of n rows, and the best code that is known of each.

    Attributes:
        cells: (n,) int16 or int32; G for a row without one.
        squares: (n,) float32, scaled squares of the distances to their centres.
        scores: (n,) float64; infinite without a code.
        codes: (n,) int64; ``NO_CODE`` without one.
    """

    cells: Tensor
    squares: Tensor
    scores: Tensor
    codes: Tensor


def _centres(cells: Cells, most: int) -> int:
    """Centres in a tile: few choices, as a kernel is compiled for each."""
    return min(most, max(32, triton.next_power_of_2(cells.count)))


def nearest_centres(
    x: Tensor, cells: Cells, stale: Tensor, channel_dim: int, first_row: int, num_rows: int
) -> Homes:
    """The homes of ``num_rows`` rows from ``first_row`` on; none if the cells are stale."""
    key = torch.int16 if cells.count < 2**15 - 1 else torch.int32
    homes = Homes(
        x.new_empty(num_rows, dtype=key),
        x.new_empty(num_rows, dtype=torch.float32),
        x.new_empty(num_rows, dtype=torch.float64),
        x.new_empty(num_rows, dtype=torch.int64),
    )
    x, layout = row_layout(x, channel_dim)
    with torch.cuda.device_of(x):
        _nearest_centres[(triton.cdiv(num_rows, _ROWS),)](
            *(x, cells.exponent, cells.starts, cells.centres, stale, *homes),
            *(first_row, num_rows, cells.count, cells.dim, *layout),
            ROWS=_ROWS,
            CENTRES=_centres(cells, _NEAREST),
        )
    return homes


def cells_in_reach(
    x: Tensor, cells: Cells, homes: Homes, channel_dim: int, first_row: int
) -> tuple[Tensor, Tensor]:
    """(cells (n, SLOTS), G in free slots; how many each row has (n,) int32, above SLOTS if left).

    A row with more cells than slots has all of its slots free.
    """
    num_rows = len(homes.cells)
    keys = homes.cells.new_empty(num_rows, SLOTS)
    counts = x.new_empty(num_rows, dtype=torch.int32)
    tables = (cells.margins, cells.inverses)
    x, layout = row_layout(x, channel_dim)
    with torch.cuda.device_of(x):
        _cells_in_reach[(triton.cdiv(num_rows, _ROWS),)](
            *(x, cells.exponent, cells.starts, cells.centres, *tables, *homes[:3]),
            *(keys, counts, first_row, num_rows, cells.count, cells.dim, *layout),
            SLOTS=SLOTS,
            ROWS=_ROWS,
            CENTRES=_centres(cells, _IN_REACH),
        )
    used = counts.masked_fill(counts > SLOTS, 0)
    free = torch.arange(SLOTS, device=x.device) >= used[:, None]
    return keys.masked_fill_(free, cells.count), counts
