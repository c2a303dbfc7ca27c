"""Groups scanned for the rows that are looked for in them: dense blocks, exact as ``exact`` says.

A pair is a row and a group. Pairs are sorted by group, and a program takes a fixed number of them:
it scans the codes of its first group for the pairs of that group, then those of its next one. So
no list of blocks is needed, and a boundary between groups costs one block more.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vqkernels.backends.triton._layouts import row_layout, row_offsets
from vqkernels.backends.triton.exact import common_scale, lower_end, settle
from vqkernels.backends.triton.group_bound import squares
from vqkernels.backends.triton.groups import Groups
from vqkernels.backends.triton.near_groups import Homes

_PAIRS = 16
_CODES = 64


@triton.jit(do_not_specialize=["first_row", "num_pairs", "num_codes", "num_groups"])
def _scan_groups(
    x_ptr,  # (N, D) through strides
    codebook_ptr,  # (K, D)
    exponent_ptr,  # (1,) float32
    starts_ptr,  # (G + 1,) int32
    ids_ptr,  # (K,) int32
    members_ptr,  # (D, K) float32
    keys_ptr,  # (P,) int16 or int32, ascending: groups; G ends the list
    order_ptr,  # (P,) int64: the pairs in this order, SLOTS per row
    known_scores_ptr,  # (n,) float64
    known_codes_ptr,  # (n,) int64
    scores_ptr,  # (P,) float64, out, by pair: the best of what is known and the group
    codes_ptr,  # (P,) int64, out, by pair
    first_row,
    num_pairs,
    num_codes,
    num_groups,
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
    key = tl.load(keys_ptr + place, mask=place < num_pairs, other=num_groups).to(tl.int32)
    real = key < num_groups
    pair = tl.load(order_ptr + place, mask=real, other=0)
    row = pair // SLOTS
    best = tl.load(known_scores_ptr + row, mask=real, other=0.0)
    best_code = tl.load(known_codes_ptr + row, mask=real, other=0)
    row += first_row
    x_row = x_ptr + row_offsets(row, size1, size2, size3, stride0, stride1, stride2, stride3)
    scale, unscale = common_scale(exponent_ptr, True)
    group = tl.min(key)
    while group < num_groups:
        mine = key == group
        last = tl.load(starts_ptr + group + 1)
        for start in range(tl.load(starts_ptr + group), last, CODES):
            member = start + tl.arange(0, CODES)
            alive = member < last
            value = squares(
                x_row, dim_stride, members_ptr, member, num_codes, dim, scale,
                PAIRS, CODES,
            )  # fmt: skip
            low = lower_end(value, value, dim)
            low = tl.where(mine[:, None] & alive[None, :], low, float("inf"))
            code = tl.load(ids_ptr + member, mask=alive, other=0).to(tl.int64)
            best, best_code = settle(
                x_row, dim_stride, codebook_ptr, dim, low, code[None, :], best, best_code,
                unscale, True,
            )  # fmt: skip
        group = tl.min(tl.where(key > group, key, num_groups))
    tl.store(scores_ptr + pair, best, mask=real)
    tl.store(codes_ptr + pair, best_code, mask=real)


def scan_groups(
    x: Tensor,
    codebook: Tensor,
    groups: Groups,
    keys: Tensor,
    known: Homes,
    results: tuple[Tensor, Tensor],
    channel_dim: int,
    first_row: int,
) -> None:
    """Writes the best score and code of every pair, be it of its group or known before.

    Args:
        keys: (n * slots,) the groups of rows from ``first_row`` on, G in free slots; shaped like
            both results, (float64, int64), of which free slots are not written.
        known: of the same n rows.
    """
    ascending, order = torch.sort(keys.view(-1))
    members = (groups.exponent, groups.starts, groups.ids, groups.members)
    x, layout = row_layout(x, channel_dim)
    with torch.cuda.device_of(x):
        _scan_groups[(triton.cdiv(len(order), _PAIRS),)](
            *(x, codebook, *members, ascending, order, known.scores, known.codes, *results),
            *(first_row, len(order), len(codebook), groups.count, groups.dim, *layout),
            SLOTS=len(order) // len(known.scores),
            PAIRS=_PAIRS,
            CODES=_CODES,
            enable_fp_fusion=False,
        )
