"""The pruned search: only the cells of codes that could hold a row's nearest one are looked at.

Per row: the nearest centre, its cell, and the cells that ``cell_bound`` does not exclude then.
Rows go through in blocks of fixed size, so that memory does not grow with their number, and every
step is launched whatever the data. Rows that are not finished are left to the caller.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vqkernels.backends.triton.cell_scan import scan_cells
from vqkernels.backends.triton.cells import MAGIC, Cells
from vqkernels.backends.triton.exact import NO_CODE
from vqkernels.backends.triton.near_cells import SLOTS, Homes, cells_in_reach, nearest_centres
from vqkernels.backends.triton.row_list import RowList, append

_BLOCK_ROWS = 1 << 17
_ROWS = 64  # per program of the merging
_CODES = 64  # per program of the comparison
_MAGIC = tl.constexpr(MAGIC)


@triton.jit(do_not_specialize=["num_codes", "num_cells"])
def _compare(
    codebook_ptr,  # (K, D)
    header_ptr,  # (4,) int64
    ids_ptr,  # (K,) int32
    members_ptr,  # (D, K) float32
    stale_ptr,  # () int32, out: 1 unless the members are the codes
    num_codes,
    dim,
    num_cells,
    CODES: tl.constexpr,
):
    member = tl.program_id(0) * CODES + tl.arange(0, CODES)
    inside = member < num_codes
    code = tl.load(ids_ptr + member, mask=inside, other=0).to(tl.int64)
    real = (code >= 0) & (code < num_codes)
    same = real
    for i in range(0, dim):
        at = members_ptr + tl.cast(i, tl.int64) * num_codes + member
        kept = tl.load(at, mask=inside, other=0.0)
        now = tl.load(codebook_ptr + code * dim + i, mask=inside & real, other=0.0).to(tl.float32)
        same &= (kept == now) | ((kept != kept) & (now != now))
    known = (tl.load(header_ptr) == _MAGIC) & (tl.load(header_ptr + 1) == num_codes)
    known &= (tl.load(header_ptr + 2) == dim) & (tl.load(header_ptr + 3) == num_cells)
    if (tl.min((same | ~inside).to(tl.int32)) == 0) | ~known:
        tl.store(stale_ptr, 1)


@triton.jit(do_not_specialize=["first_row", "num_rows"])
def _merge_pairs(
    counts_ptr,  # (n,) int32
    home_scores_ptr,  # (n,) float64
    home_codes_ptr,  # (n,) int64
    scores_ptr,  # (n, SLOTS) float64
    codes_ptr,  # (n, SLOTS) int64
    indices_ptr,  # (N,) int64, out
    distances_ptr,  # (N,) float32, out
    left_count_ptr,
    left_rows_ptr,
    left_scores_ptr,
    left_codes_ptr,
    left_bounds_ptr,  # of a ``RowList``, out
    first_row,
    num_rows,
    SLOTS: tl.constexpr,
    ROWS: tl.constexpr,
):
    place = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = place < num_rows
    row = tl.cast(first_row, tl.int64) + place
    count = tl.load(counts_ptr + place, mask=inside, other=0)
    home_score = tl.load(home_scores_ptr + place, mask=inside, other=float("inf"))
    home_code = tl.load(home_codes_ptr + place, mask=inside, other=NO_CODE)
    done = inside & (count <= SLOTS)
    slot = tl.arange(0, SLOTS)[None, :]
    at, used = place[:, None] * SLOTS + slot, done[:, None] & (slot < count[:, None])
    scores = tl.load(scores_ptr + at, mask=used, other=float("inf"))
    codes = tl.load(codes_ptr + at, mask=used, other=NO_CODE)
    best = tl.minimum(tl.min(scores, axis=1), home_score)
    code = tl.min(tl.where(scores == best[:, None], codes, NO_CODE), axis=1)
    code = tl.minimum(code, tl.where(home_score == best, home_code, NO_CODE))
    tl.store(indices_ptr + row, code, mask=done)
    tl.store(distances_ptr + row, best.to(tl.float32), mask=done)
    append(
        left_count_ptr, left_rows_ptr, left_scores_ptr, left_codes_ptr, left_bounds_ptr,
        row, home_score, home_code, home_score, inside & ~done,
    )  # fmt: skip


def pruned(
    x: Tensor,
    codebook: Tensor,
    cells: Cells,
    channel_dim: int,
    found: tuple[Tensor, Tensor],
    left: RowList,
) -> None:
    """Writes index and distance of most rows and lists the others, all if the cells are stale."""
    stale = torch.zeros((), dtype=torch.int32, device=x.device)
    with torch.cuda.device_of(x):
        _compare[(triton.cdiv(len(codebook), _CODES),)](
            *(codebook, cells.header, cells.ids, cells.members, stale),
            *(*codebook.shape, cells.count),
            CODES=_CODES,
        )
    num_rows = found[0].numel()
    for first in range(0, num_rows, _BLOCK_ROWS):
        rows = min(_BLOCK_ROWS, num_rows - first)
        homes = nearest_centres(x, cells, stale, channel_dim, first, rows)
        where = (channel_dim, first)
        scan_cells(x, codebook, cells, homes.cells, homes, homes[2:], *where)
        keys, counts = cells_in_reach(x, cells, homes, *where)
        pairs = homes.scores.new_empty(keys.shape), homes.codes.new_empty(keys.shape)
        scan_cells(x, codebook, cells, keys, homes, pairs, *where)
        _finish(homes, counts, pairs, found, left, first)


def _finish(
    homes: Homes,
    counts: Tensor,
    pairs: tuple[Tensor, Tensor],
    found: tuple[Tensor, Tensor],
    left: RowList,
    first_row: int,
) -> None:
    """The best pair of every row that had room for its cells; the others to the list."""
    num_rows = len(counts)
    with torch.cuda.device_of(counts):
        _merge_pairs[(triton.cdiv(num_rows, _ROWS),)](
            *(counts, homes.scores, homes.codes, *pairs, *found, *left.parts),
            *(first_row, num_rows),
            SLOTS=SLOTS,
            ROWS=_ROWS,
        )
