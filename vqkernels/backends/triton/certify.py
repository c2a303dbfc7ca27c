"""Certify: the best group of every row, and whether any other could hold its nearest code.

Nearly every row ends here. One that has a second candidate goes to ``rerank``, and one whose list
may be too short, or that was not screened, to ``scan``.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vqkernels.backends.triton._layouts import row_layout, row_offsets
from vqkernels.backends.triton.bound import SLACK, power_of_two_double
from vqkernels.backends.triton.exact import NO_CODE, common_scale, intervals
from vqkernels.backends.triton.pack import Packed
from vqkernels.backends.triton.row_list import RowList, append
from vqkernels.backends.triton.screen import Shortlist
from vqkernels.backends.triton.split_rows import SplitRows

_ROWS = 64
_ENTRIES = 4096  # of the short lists of a program's rows
_BLOCK = 16  # differences of a row that are in flight: codes times channels
# The probe counts a row for the scan as so many for ``rerank``.
_OPEN_ROW_COSTS = tl.constexpr(16)


@triton.jit
def _best_of_group(
    x_row, dim_stride, codebook_ptr, group, rows, num_codes, dim, scale,
    L2: tl.constexpr, ROWS: tl.constexpr, GROUP: tl.constexpr, CODES: tl.constexpr,
    DIMS: tl.constexpr,
):  # fmt: skip
    """(code with the lowest interval, NO_CODE without one; lower end of the next one), (ROWS,)."""
    group_row = codebook_ptr + group * GROUP * dim
    room = num_codes - group * GROUP
    lowest = tl.full((ROWS,), float("inf"), tl.float32)
    second = tl.full((ROWS,), float("inf"), tl.float32)
    best = tl.full((ROWS,), GROUP, tl.int32)
    for offset in range(0, GROUP, CODES):
        member = offset + tl.arange(0, CODES)
        alive = rows[:, None] & (member[None, :] < room[:, None])
        low = intervals(
            x_row, dim_stride, group_row, member, alive, dim, scale, L2, ROWS, CODES, DIMS
        )
        first = tl.min(low, axis=1)
        at_first = (low == first[:, None]) & (low < float("inf"))
        which = tl.min(tl.where(at_first, member[None, :], GROUP), axis=1)
        others = tl.where(member[None, :] == which[:, None], float("inf"), low)
        second = tl.minimum(second, tl.min(others, axis=1))
        second = tl.minimum(second, tl.maximum(lowest, first))
        best = tl.where(first < lowest, which, best)
        lowest = tl.minimum(lowest, first)
    return tl.where(best < GROUP, group * GROUP + best, NO_CODE), second


@triton.jit
def _score_and_reach(
    x_row, dim_stride, codebook_ptr, centre_ptr, code, dim, rows,
    L2: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """F(x, c) as ``exact.score`` computes it, and |x - mu|^2 beside it; float64, (ROWS,)."""
    c_row = codebook_ptr + code * dim
    total = tl.zeros((ROWS,), tl.float64)
    square = tl.zeros((ROWS,), tl.float64)
    for i in range(0, dim):
        x = tl.load(x_row + tl.cast(i, tl.int64) * dim_stride, mask=rows, other=0.0)
        c = tl.load(c_row + i, mask=rows, other=0.0)
        x, c = x.to(tl.float32).to(tl.float64), c.to(tl.float32).to(tl.float64)
        if L2:
            a = x - tl.load(centre_ptr + i).to(tl.float64)
            t = x - c
            total = total + t * t
        else:
            a = x
            total = total - x * c
        square += a * a
    return total, square


@triton.jit
def _attained(score, square, x_norm, p, scalars_ptr, dim, alpha, L2: tl.constexpr):
    """L of ``bound``: no code with a smaller U can be chosen; float64, (ROWS,)."""
    q, t = tl.load(scalars_ptr).to(tl.int32), tl.load(scalars_ptr + 1).to(tl.int32)
    if L2:
        attained = (square - score) * 0.5 - (square + score) * 2.0**-37
    else:
        # By the choice of q no |c| is above this.
        longest = tl.sqrt(tl.cast(dim, tl.float64)) * power_of_two_double(8 - q)
        attained = -score - tl.sqrt(square) * longest * 2.0**-37
    exponent = p + q - t
    lam = tl.where(exponent < -24, 0.0, power_of_two_double(exponent))
    shift = x_norm * tl.load(scalars_ptr + 2).to(tl.float64)
    shift += lam * tl.load(scalars_ptr + 3).to(tl.float64)
    scaled = attained * power_of_two_double(p) * power_of_two_double(q)
    return scaled + shift * (1 - tl.cast(alpha, tl.float64) * SLACK)


@triton.jit
def _as_score(bits):
    """Bits of a bound back as a number; negative ones stand for no group."""
    score = bits.to(tl.float32, bitcast=True).to(tl.float64)
    return tl.where(bits < 0, -float("inf"), score)


@triton.jit(do_not_specialize=["num_rows", "num_codes"])
def _certify(
    wanted_ptr,  # () int32 or None: 0 where nothing is to be done
    x_ptr,  # (N, D) through strides
    codebook_ptr,  # (K, D)
    centre_ptr,  # (D,) float32
    scalars_ptr,  # (4,) float32
    exponents_ptr,  # (N,) int32
    norms_ptr,  # (N,) float32
    scores_ptr,  # (N, ENTRIES) int32
    groups_ptr,  # (N, ENTRIES) int32
    rest_ptr,  # (N, SLOTS) int32
    indices_ptr,  # (N,) int64, out
    distances_ptr,  # (N,) float32, out
    difficulty_ptr,  # () int32, out, when COUNT; then nothing else is
    contested_count_ptr,
    contested_rows_ptr,
    contested_scores_ptr,
    contested_codes_ptr,
    contested_bounds_ptr,  # of a ``RowList``, out: more than one code is possible
    open_count_ptr,
    open_rows_ptr,
    open_scores_ptr,
    open_codes_ptr,
    open_bounds_ptr,  # of a ``RowList``, out: every code is
    num_rows,
    num_codes,
    dim,
    alpha,
    size1,
    size2,
    size3,
    stride0,
    stride1,
    stride2,
    stride3,
    dim_stride,
    COUNT: tl.constexpr,
    L2: tl.constexpr,
    ENTRIES: tl.constexpr,
    SLOTS: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    CODES: tl.constexpr,
    DIMS: tl.constexpr,
):
    if wanted_ptr is not None and tl.load(wanted_ptr) == 0:
        return
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = row < num_rows
    x_row = x_ptr + row_offsets(row, size1, size2, size3, stride0, stride1, stride2, stride3)
    p = tl.load(exponents_ptr + row, mask=inside, other=0)
    x_norm = tl.load(norms_ptr + row, mask=inside, other=float("inf"))
    screened = x_norm < float("inf")
    x_norm = tl.where(screened, x_norm, 0.0).to(tl.float64)

    entry, slot = tl.arange(0, ENTRIES)[None, :], tl.arange(0, SLOTS)[None, :]
    at = row[:, None] * ENTRIES + entry
    bits = tl.load(scores_ptr + at, mask=screened[:, None], other=-1)
    groups = tl.load(groups_ptr + at, mask=screened[:, None], other=0)
    rest = tl.load(rest_ptr + row[:, None] * SLOTS + slot, mask=screened[:, None], other=-1)
    highest = tl.max(bits, axis=1)
    rows = highest >= 0
    group = tl.max(tl.where(bits == highest[:, None], groups, -1), axis=1)
    group = tl.where(rows, group, 0).to(tl.int64)
    runner_up = tl.max(tl.where(groups == group[:, None], -1, bits), axis=1)

    scale, unscale = common_scale(scalars_ptr, L2)
    code, second = _best_of_group(
        x_row, dim_stride, codebook_ptr, group, rows, num_codes, dim, scale,
        L2, ROWS, GROUP, CODES, DIMS,
    )  # fmt: skip
    rows &= code < NO_CODE
    score, square = _score_and_reach(
        x_row, dim_stride, codebook_ptr, centre_ptr, tl.where(rows, code, 0), dim, rows, L2, ROWS
    )
    below = _attained(score, square, x_norm, p, scalars_ptr, dim, alpha, L2)

    # A NaN, or a bound that is not positive (``bound``: the shift), leaves the row open.
    closed = rows & (below > 0) & (_as_score(tl.max(rest, axis=1)) < below)
    single = (_as_score(runner_up) < below) & (second.to(tl.float64) * unscale > score)
    left, contested = inside & ~closed, closed & ~single
    if COUNT:
        cost = contested.to(tl.int32) + left.to(tl.int32) * _OPEN_ROW_COSTS
        tl.atomic_add(difficulty_ptr, tl.sum(cost))
    else:
        distance = score if L2 else -score
        tl.store(indices_ptr + row, code, mask=closed & single)
        tl.store(distances_ptr + row, distance.to(tl.float32), mask=closed & single)
        append(
            contested_count_ptr, contested_rows_ptr, contested_scores_ptr, contested_codes_ptr,
            contested_bounds_ptr, row, score, code, below, contested,
        )  # fmt: skip
        append(
            open_count_ptr, open_rows_ptr, open_scores_ptr, open_codes_ptr, open_bounds_ptr,
            row, tl.where(rows, score, float("inf")), code, below, left,
        )  # fmt: skip


def certify(
    x: Tensor,
    codebook: Tensor,
    rows: SplitRows,
    packed: Packed,
    shortlist: Shortlist,
    metric: str,
    channel_dim: int,
    difficulty: Tensor,
    results: tuple[Tensor, Tensor, RowList, RowList] | None,
    wanted: Tensor | None = None,
) -> None:
    """Finishes the rows it can and lists the others as contested or open.

    Args:
        results: indices, distances, contested and open rows; None: only add to ``difficulty`` what
            finishing the rows of the shortlist would cost.
        wanted: () int32 on the device; if it is there and 0, nothing is done.
    """
    num_rows, slots, kept = shortlist.scores.shape
    if results is None:
        nothing = difficulty.new_empty(0)
        written = (nothing, nothing, difficulty, *[nothing] * 10)
    else:
        indices, distances, contested, unbounded = results
        written = (indices, distances, difficulty, *contested.parts, *unbounded.parts)
    group, entries = packed.plan.group, slots * kept
    block_rows = min(_ROWS, _ENTRIES // entries)
    dims = min(_BLOCK, max(8, triton.next_power_of_2(codebook.shape[1])))
    x, layout = row_layout(x, channel_dim)
    with torch.cuda.device_of(x):
        _certify[(triton.cdiv(num_rows, block_rows),)](
            *(wanted, x, codebook, packed.centre, packed.scalars, rows.exponents, rows.norms),
            *(shortlist.scores, shortlist.groups, shortlist.rest),
            *written,
            num_rows,
            *codebook.shape,
            packed.alpha,
            *layout,
            COUNT=results is None,
            L2=metric == "l2",
            ENTRIES=entries,
            SLOTS=slots,
            GROUP=group,
            ROWS=block_rows,
            CODES=min(group, _BLOCK // dims),
            DIMS=dims,
            enable_fp_fusion=False,
        )
