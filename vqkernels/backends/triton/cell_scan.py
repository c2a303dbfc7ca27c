"""Cells scanned for the rows that are looked for in them: dense blocks, exact as ``exact`` says.

A pair is a row and a cell. Pairs are sorted by cell, and a program takes a fixed number of them:
it scans the codes of its first cell for the pairs of that cell, then those of its next one. So
no list of blocks is needed, and a boundary between cells costs one block more.

Float64 costs more than all intervals of a block, so a first pass over a cell keeps the code with
the lowest one and where the next begins. That code is evaluated if it can win, and only rows for
which the next one still can go through the cell again.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vqkernels.backends.triton._layouts import row_layout, row_offsets
from vqkernels.backends.triton.cell_bound import squares
from vqkernels.backends.triton.cells import Cells
from vqkernels.backends.triton.exact import common_scale, lower_end, score, settle
from vqkernels.backends.triton.near_cells import Homes

_PAIRS = 16
_CODES = 64


_NONE = tl.constexpr(2**31 - 1)


@triton.jit
def _lower_ends(
    x_row, dim_stride, ids_ptr, members_ptr, member, last, num_codes, dim, scale, rows,
    PAIRS: tl.constexpr, CODES: tl.constexpr,
):  # fmt: skip
    """(lower ends (PAIRS, CODES), infinite for other rows and past the cell; codes (CODES,))."""
    alive = member < last
    value = squares(
        x_row, dim_stride, members_ptr, member, num_codes, dim, scale, PAIRS, CODES
    )  # fmt: skip
    low = tl.where(rows[:, None] & alive[None, :], lower_end(value, value, dim), float("inf"))
    return low, tl.load(ids_ptr + member, mask=alive, other=0)


@triton.jit
def _with_tile(low, code, lowest, nearest, second):
    """(lowest, its code, the next lowest) of the rows so far, and of one more tile."""
    first = tl.min(low, axis=1)
    at_first = (low == first[:, None]) & (low < float("inf"))
    which = tl.min(tl.where(at_first, code[None, :], _NONE), axis=1)
    others = tl.where(code[None, :] == which[:, None], float("inf"), low)
    second = tl.minimum(tl.minimum(second, tl.min(others, axis=1)), tl.maximum(lowest, first))
    return tl.minimum(lowest, first), tl.where(first < lowest, which, nearest), second


@triton.jit(do_not_specialize=["first_row", "num_pairs", "num_codes", "num_cells"])
def _scan_cells(
    x_ptr,  # (N, D) through strides
    codebook_ptr,  # (K, D)
    exponent_ptr,  # (1,) float32
    starts_ptr,  # (G + 1,) int32
    ids_ptr,  # (K,) int32
    members_ptr,  # (D, K) float32
    keys_ptr,  # (P,) int16 or int32, ascending: cells; G ends the list
    order_ptr,  # (P,) int64: the pairs in this order, SLOTS per row
    known_scores_ptr,  # (n,) float64
    known_codes_ptr,  # (n,) int64
    scores_ptr,  # (P,) float64, out, by pair: the best of what is known and the cell
    codes_ptr,  # (P,) int64, out, by pair
    first_row,
    num_pairs,
    num_codes,
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
    PAIRS: tl.constexpr,
    CODES: tl.constexpr,
):
    place = tl.program_id(0).to(tl.int64) * PAIRS + tl.arange(0, PAIRS)
    key = tl.load(keys_ptr + place, mask=place < num_pairs, other=num_cells).to(tl.int32)
    real = key < num_cells
    pair = tl.load(order_ptr + place, mask=real, other=0)
    row = pair // SLOTS
    best = tl.load(known_scores_ptr + row, mask=real, other=0.0)
    best_code = tl.load(known_codes_ptr + row, mask=real, other=0)
    row += first_row
    x_row = x_ptr + row_offsets(row, size1, size2, size3, stride0, stride1, stride2, stride3)
    scale, unscale = common_scale(exponent_ptr, True)
    cell = tl.min(key)
    while cell < num_cells:
        mine = key == cell
        start, last = tl.load(starts_ptr + cell), tl.load(starts_ptr + cell + 1)
        lowest = tl.full((PAIRS,), float("inf"), tl.float32)
        second = tl.full((PAIRS,), float("inf"), tl.float32)
        nearest = tl.full((PAIRS,), _NONE, tl.int32)
        for tile in range(start, last, CODES):
            low, code = _lower_ends(
                x_row, dim_stride, ids_ptr, members_ptr, tile + tl.arange(0, CODES), last,
                num_codes, dim, scale, mine, PAIRS, CODES,
            )  # fmt: skip
            lowest, nearest, second = _with_tile(low, code, lowest, nearest, second)

        asked = (nearest < _NONE) & (lowest.to(tl.float64) * unscale <= best)
        if tl.max(asked.to(tl.int32)) != 0:
            code = tl.where(asked, nearest, 0).to(tl.int64)
            value = score(x_row, dim_stride, codebook_ptr, code, dim, asked, True)
            better = asked & ((value < best) | ((value == best) & (code < best_code)))
            best, best_code = tl.where(better, value, best), tl.where(better, code, best_code)
        open_rows = (second < float("inf")) & (second.to(tl.float64) * unscale <= best)
        if tl.max(open_rows.to(tl.int32)) != 0:
            for tile in range(start, last, CODES):
                low, code = _lower_ends(
                    x_row, dim_stride, ids_ptr, members_ptr, tile + tl.arange(0, CODES), last,
                    num_codes, dim, scale, open_rows, PAIRS, CODES,
                )  # fmt: skip
                best, best_code = settle(
                    x_row, dim_stride, codebook_ptr, dim, low, code.to(tl.int64)[None, :],
                    best, best_code, unscale, True,
                )  # fmt: skip
        cell = tl.min(tl.where(key > cell, key, num_cells))
    tl.store(scores_ptr + pair, best, mask=real)
    tl.store(codes_ptr + pair, best_code, mask=real)


def scan_cells(
    x: Tensor,
    codebook: Tensor,
    cells: Cells,
    keys: Tensor,
    known: Homes,
    results: tuple[Tensor, Tensor],
    channel_dim: int,
    first_row: int,
) -> None:
    """Writes the best score and code of every pair, be it of its cell or known before.

    Args:
        keys: (n * slots,) the cells of rows from ``first_row`` on, G in free slots; shaped like
            both results, (float64, int64), of which free slots are not written.
        known: of the same n rows.
    """
    ascending, order = torch.sort(keys.view(-1))
    members = (cells.exponent, cells.starts, cells.ids, cells.members)
    x, layout = row_layout(x, channel_dim)
    with torch.cuda.device_of(x):
        _scan_cells[(triton.cdiv(len(order), _PAIRS),)](
            *(x, codebook, *members, ascending, order, known.scores, known.codes, *results),
            *(first_row, len(order), len(codebook), cells.count, cells.dim, *layout),
            SLOTS=len(order) // len(known.scores),
            PAIRS=_PAIRS,
            CODES=_CODES,
            enable_fp_fusion=False,
        )
