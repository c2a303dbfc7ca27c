"""The scan: all codes for the rows that the screen leaves open, exact without any bound.

How many rows there are is known on the device alone, so a fixed number of programs take blocks of
rows from a list until it ends. A short list would keep few programs busy: then several share the
codes of one block, and ``_merge`` takes the best of what they found.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vqkernels.backends.triton._layouts import row_layout, row_offsets
from vqkernels.backends.triton.exact import NO_CODE, common_scale, lower_end, settle
from vqkernels.backends.triton.row_list import RowList

_ROWS = 16
_CODES = 64
_MERGED = 64  # rows per program
_SHARES = tl.constexpr(16)  # of the codes, for blocks of a short list
_SHORT = tl.constexpr(4096)  # rows


@triton.jit
def _is_short(count):
    """Whether the blocks of a list of so many rows are shared."""
    return count <= _SHORT


@triton.jit
def _store(indices_ptr, distances_ptr, row, best, best_code, inside, L2: tl.constexpr):
    """Index 0 and NaN where no code could be chosen."""
    found = best_code < NO_CODE
    distance = best if L2 else -best
    distance = tl.where(found, distance, float("nan"))
    tl.store(indices_ptr + row, tl.where(found, best_code, 0), mask=inside)
    tl.store(distances_ptr + row, distance.to(tl.float32), mask=inside)


@triton.jit
def _intervals(
    x_row, dim_stride, codebook_ptr, code, rows, num_codes, dim, scale,
    L2: tl.constexpr, ROWS: tl.constexpr, CODES: tl.constexpr,
):  # fmt: skip
    """(lower ends (ROWS, CODES), which codes are real and finite (CODES,))."""
    alive = code < num_codes
    value = tl.zeros((ROWS, CODES), tl.float32)
    magnitude = tl.zeros((ROWS, CODES), tl.float32)
    for i in range(0, dim):
        x = tl.load(x_row + tl.cast(i, tl.int64) * dim_stride, mask=rows, other=0.0).to(tl.float32)
        c = tl.load(codebook_ptr + code * dim + i, mask=code < num_codes, other=0.0)
        c = c.to(tl.float32)
        alive &= tl.abs(c) < float("inf")
        if L2:
            t = (x[:, None] - c[None, :]) * scale
            value = tl.fma(t, t, value)
        else:
            t = x[:, None] * c[None, :]
            value -= t
            magnitude += tl.abs(t)
    if L2:
        magnitude = value
    return lower_end(value, magnitude, dim), alive


@triton.jit(do_not_specialize=["num_codes"])
def _scan(
    x_ptr,  # (N, D) through strides
    codebook_ptr,  # (K, D)
    exponent_ptr,  # () float32: q of the codebook
    count_ptr,  # () int32
    open_rows_ptr,  # (N,) int64
    open_scores_ptr,  # (N,) float64
    open_codes_ptr,  # (N,) int64
    shared_scores_ptr,  # (SHORT, SHARES) float64, out
    shared_codes_ptr,  # (SHORT, SHARES) int64, out
    indices_ptr,  # (N,) int64, out
    distances_ptr,  # (N,) float32, out
    num_codes,
    dim,
    size1,
    size2,
    size3,
    stride0,
    stride1,
    stride2,
    stride3,
    dim_stride,
    L2: tl.constexpr,
    ROWS: tl.constexpr,
    CODES: tl.constexpr,
):
    count = tl.load(count_ptr)
    short = _is_short(count)
    shares = tl.where(short, _SHARES, 1)
    scale, unscale = common_scale(exponent_ptr, L2)
    share_codes = tl.cdiv(tl.cdiv(num_codes, shares), CODES) * CODES

    for block in range(tl.program_id(0), tl.cdiv(count, ROWS) * shares, tl.num_programs(0)):
        place = (block // shares) * ROWS + tl.arange(0, ROWS)
        share = block % shares
        inside = place < count
        row = tl.load(open_rows_ptr + place, mask=inside, other=0)
        x_row = x_ptr + row_offsets(row, size1, size2, size3, stride0, stride1, stride2, stride3)
        best = tl.load(open_scores_ptr + place, mask=inside, other=0.0)
        best_code = tl.load(open_codes_ptr + place, mask=inside, other=0)
        finite, nonzero = inside, tl.zeros((ROWS,), tl.int1)
        for i in range(0, dim):
            x = tl.load(x_row + tl.cast(i, tl.int64) * dim_stride, mask=inside, other=0.0)
            finite &= tl.abs(x.to(tl.float32)) < float("inf")
            nonzero |= x != 0
        # A zero x ties with every code under the cosine metric: the first finite one is its code.
        any_code = finite & ~nonzero
        if L2:
            any_code = tl.zeros((ROWS,), tl.int1)

        first = tl.cast(share, tl.int64) * share_codes
        for start in range(first, tl.minimum(first + share_codes, num_codes), CODES):
            code = tl.cast(start, tl.int64) + tl.arange(0, CODES)
            low, alive = _intervals(
                x_row, dim_stride, codebook_ptr, code, finite, num_codes, dim, scale,
                L2, ROWS, CODES,
            )  # fmt: skip
            earliest = tl.min(tl.where(alive, code, NO_CODE), axis=0)
            done = any_code & (best_code < earliest)
            taking = (finite & ~done)[:, None] & alive[None, :]
            taking &= ~any_code[:, None] | (code == earliest)[None, :]
            best, best_code = settle(
                x_row, dim_stride, codebook_ptr, dim, tl.where(taking, low, float("inf")),
                code[None, :], best, best_code, unscale, L2,
            )  # fmt: skip
        if short:
            at = tl.cast(place, tl.int64) * _SHARES + share
            tl.store(shared_scores_ptr + at, best, mask=inside)
            tl.store(shared_codes_ptr + at, best_code, mask=inside)
        else:
            best_code = tl.where(finite, best_code, NO_CODE)
            _store(indices_ptr, distances_ptr, row, best, best_code, inside, L2)


@triton.jit
def _merge(
    count_ptr,  # () int32
    open_rows_ptr,  # (N,) int64
    shared_scores_ptr,  # (SHORT, SHARES) float64
    shared_codes_ptr,  # (SHORT, SHARES) int64
    indices_ptr,  # (N,) int64, out
    distances_ptr,  # (N,) float32, out
    L2: tl.constexpr,
    ROWS: tl.constexpr,
):
    count = tl.load(count_ptr)
    place = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = (place < count) & _is_short(count)
    at = place[:, None] * _SHARES + tl.arange(0, _SHARES)[None, :]
    scores = tl.load(shared_scores_ptr + at, mask=inside[:, None], other=float("inf"))
    codes = tl.load(shared_codes_ptr + at, mask=inside[:, None], other=NO_CODE)
    best = tl.min(scores, axis=1)
    best_code = tl.min(tl.where(scores == best[:, None], codes, NO_CODE), axis=1)
    row = tl.load(open_rows_ptr + place, mask=inside, other=0)
    _store(indices_ptr, distances_ptr, row, best, best_code, inside, L2)


def scan(
    x: Tensor,
    codebook: Tensor,
    exponent: Tensor,
    open_rows: RowList,
    metric: str,
    channel_dim: int,
    found: tuple[Tensor, Tensor],
    programs: int,
) -> None:
    """Writes index and distance of all open rows.

    Args:
        exponent: float32, at least one element: q of the codebook, or about -log2 of its largest
            component; it brings squares into range and changes no result.
        programs: how many take part.
    """
    shape = (_SHORT.value, _SHARES.value)
    shared = (
        codebook.new_empty(shape, dtype=torch.float64),
        codebook.new_empty(shape, dtype=torch.int64),
    )
    x, layout = row_layout(x, channel_dim)
    with torch.cuda.device_of(x):
        _scan[(programs,)](
            x,
            codebook,
            exponent,
            open_rows.count,
            open_rows.rows,
            open_rows.scores,
            open_rows.codes,
            *shared,
            *found,
            *codebook.shape,
            *layout,
            L2=metric == "l2",
            ROWS=_ROWS,
            CODES=_CODES,
            enable_fp_fusion=False,
        )
        _merge[(_SHORT.value // _MERGED,)](
            open_rows.count, open_rows.rows, *shared, *found, L2=metric == "l2", ROWS=_MERGED
        )
