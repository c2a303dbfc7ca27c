"""Rows in the order of their codes: a stable sort, and where the run of every code lies."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK_K = 256


class Runs(NamedTuple):
    """N rows sorted by key; the run of code k is order[starts[k] : starts[k] + counts[k]].

    Attributes:
        keys: (N,) int16 or int32, ascending; K stands for rows that do not count.
        order: (N,) int64, the rows in that order, ascending among equal keys.
        starts: (K,) int64.
        counts: (K,) int64.
    """

    keys: Tensor
    order: Tensor
    starts: Tensor
    counts: Tensor


@triton.jit
def lower_bound(sorted_ptr, size, value, steps):
    """How many of the ``size`` ascending elements are below each value; 2^steps > size."""
    low = value.to(tl.int64) * 0
    high = low + size
    for _ in range(steps):
        middle = (low + high) // 2
        inside = low < high
        below = inside & (tl.load(sorted_ptr + middle, mask=inside, other=0) < value)
        low = tl.where(below, middle + 1, low)
        high = tl.where(inside & (below == 0), middle, high)
    return low


@triton.jit(do_not_specialize=["num_rows", "num_codes", "steps"])
def _runs_kernel(
    keys_ptr,  # (N,) ascending
    starts_ptr,  # (K,) int64
    counts_ptr,  # (K,) int64
    num_rows,
    num_codes,
    steps,
    BLOCK_K: tl.constexpr,
):
    code = tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)
    start = lower_bound(keys_ptr, num_rows, code, steps)
    end = lower_bound(keys_ptr, num_rows, code + 1, steps)
    code_ok = code < num_codes
    tl.store(starts_ptr + code, start, mask=code_ok)
    tl.store(counts_ptr + code, end - start, mask=code_ok)


def find_runs(keys: Tensor, num_codes: int, counts: Tensor | None = None) -> Runs:
    """Sorts rows by their keys; ``counts`` is written when given."""
    n = keys.numel()
    ascending, order = torch.sort(keys, stable=True)
    starts = torch.empty(num_codes, dtype=torch.int64, device=keys.device)
    if counts is None:
        counts = torch.empty_like(starts)
    with torch.cuda.device_of(keys):
        _runs_kernel[(triton.cdiv(num_codes, _BLOCK_K),)](
            ascending, starts, counts, n, num_codes, n.bit_length(), BLOCK_K=_BLOCK_K
        )
    return Runs(ascending, order, starts, counts)
