"""Re-rank: the rows for which more than one code of the short list is possible."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vqkernels.backends.triton._layouts import row_layout, row_offsets
from vqkernels.backends.triton.exact import common_scale, intervals, settle
from vqkernels.backends.triton.pack import Packed
from vqkernels.backends.triton.row_list import RowList
from vqkernels.backends.triton.screen import Shortlist

_ROWS = 8
_BLOCK = 4096  # differences that a program holds: rows, codes and channels


@triton.jit(do_not_specialize=["num_codes"])
def _rerank(
    x_ptr,  # (N, D) through strides
    codebook_ptr,  # (K, D)
    scalars_ptr,  # (4,) float32
    scores_ptr,  # (N, ENTRIES) int32
    groups_ptr,  # (N, ENTRIES) int32
    count_ptr,
    rows_ptr,
    known_scores_ptr,
    known_codes_ptr,
    bounds_ptr,  # of a ``RowList``
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
    ENTRIES: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    DIMS: tl.constexpr,
):
    count = tl.load(count_ptr)
    scale, unscale = common_scale(scalars_ptr, L2)
    entry, member = tl.arange(0, ENTRIES)[None, :], tl.arange(0, GROUP)
    for block in range(tl.program_id(0), tl.cdiv(count, ROWS), tl.num_programs(0)):
        place = block * ROWS + tl.arange(0, ROWS)
        inside = place < count
        row = tl.load(rows_ptr + place, mask=inside, other=0)
        x_row = x_ptr + row_offsets(row, size1, size2, size3, stride0, stride1, stride2, stride3)
        best = tl.load(known_scores_ptr + place, mask=inside, other=0.0)
        best_code = tl.load(known_codes_ptr + place, mask=inside, other=0)
        below = tl.load(bounds_ptr + place, mask=inside, other=0.0)
        at = row[:, None] * ENTRIES + entry
        bits = tl.load(scores_ptr + at, mask=inside[:, None], other=-1)
        groups = tl.load(groups_ptr + at, mask=inside[:, None], other=0)
        bound = bits.to(tl.float32, bitcast=True).to(tl.float64)
        waiting = (bits >= 0) & ~(bound < below[:, None])
        while tl.max(waiting.to(tl.int32)) != 0:
            highest = tl.max(tl.where(waiting, bits, -1), axis=1)
            group = tl.max(tl.where(waiting & (bits == highest[:, None]), groups, -1), axis=1)
            rows = highest >= 0
            start = tl.where(rows, group, 0).to(tl.int64) * GROUP
            codes = start[:, None] + member[None, :]
            low = intervals(
                x_row, dim_stride, codebook_ptr + start * dim, member,
                rows[:, None] & (codes < num_codes), dim, scale, L2, ROWS, GROUP, DIMS,
            )  # fmt: skip
            best, best_code = settle(
                x_row, dim_stride, codebook_ptr, dim, low, codes, best, best_code, unscale, L2
            )
            waiting &= groups != group[:, None]
        tl.store(indices_ptr + row, best_code, mask=inside)
        tl.store(distances_ptr + row, (best if L2 else -best).to(tl.float32), mask=inside)


def rerank(
    x: Tensor,
    codebook: Tensor,
    packed: Packed,
    shortlist: Shortlist,
    contested: RowList,
    metric: str,
    channel_dim: int,
    found: tuple[Tensor, Tensor],
    programs: int,
) -> None:
    """Writes index and distance of all contested rows; ``programs`` take part."""
    _, slots, kept = shortlist.scores.shape
    group = packed.plan.group
    x, layout = row_layout(x, channel_dim)
    with torch.cuda.device_of(x):
        _rerank[(programs,)](
            *(x, codebook, packed.scalars, shortlist.scores, shortlist.groups),
            *contested.parts,
            *found,
            *codebook.shape,
            *layout,
            L2=metric == "l2",
            ENTRIES=slots * kept,
            GROUP=group,
            ROWS=_ROWS,
            DIMS=_BLOCK // (_ROWS * group),
            enable_fp_fusion=False,
        )
