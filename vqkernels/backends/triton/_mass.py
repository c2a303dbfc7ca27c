"""The moving average of the rows per code, and its sum over all codes as one fixed binary tree.

The tree is that of ``_numerics.fixed_sum``: the second half is added to the first until one value
is left. A program takes some columns of the codes seen as a matrix (R, COLUMNS), whose halves are
halves of all codes, down to one row; who needs the sum adds the COLUMNS that are left. A sum over
an axis of two has one order, so every step of the tree is one.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

_MOST_COLUMNS = 1024
_ELEMENTS = 2048


@triton.jit
def decayed(size, count, decay, rest):
    """The moving average of the rows per code; ``rest`` is 1 - decay, rounded once."""
    return decay * size + rest * count


@triton.jit
def tree_sum(columns_ptr, COLUMNS: tl.constexpr, STEPS: tl.constexpr):
    """Sum of COLUMNS = 2^STEPS values, the second half added to the first."""
    value = tl.load(columns_ptr + tl.arange(0, COLUMNS))
    for step in tl.static_range(STEPS):
        value = tl.sum(tl.reshape(value, (2, COLUMNS >> (step + 1))), axis=0)
    return tl.sum(value, axis=0)


@triton.jit(do_not_specialize=["num_codes", "steps_due"])
def _decay_sizes_kernel(
    cluster_size_ptr,  # (K,) fp32, updated where due
    counts_ptr,  # (K,) fp32 | any integer
    columns_ptr,  # (COLUMNS,) fp32, the tree's last rows of the new sizes
    rows_ptr,  # (COLUMNS / BLOCK,) int64, the sum of the counts that each program has seen
    pending_steps_ptr,  # () int64 | None unless PENDING
    clock_ptr,  # () int64 | None unless PENDING
    flags_ptr,  # (2,) int64 | None unless PENDING: whether the update is due, and the new clock
    num_codes,
    steps_due,
    decay,
    rest,
    PENDING: tl.constexpr,
    ROWS: tl.constexpr,  # 2^STEPS
    STEPS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    code = tl.arange(0, ROWS)[:, None] * COLUMNS + column[None, :]
    code_ok = code < num_codes
    size = tl.load(cluster_size_ptr + code, mask=code_ok, other=0.0)
    count = tl.load(counts_ptr + code, mask=code_ok, other=0).to(tl.float32)
    rows = tl.sum(tl.sum(count.to(tl.int64), axis=0), axis=0)
    tl.store(rows_ptr + tl.program_id(0), rows)
    size = decayed(size, count, decay, rest)
    value = size
    for step in tl.static_range(STEPS):
        value = tl.sum(tl.reshape(value, (2, ROWS >> (step + 1), BLOCK)), axis=0)
    tl.store(columns_ptr + column, tl.sum(value, axis=0))
    tl.debug_barrier()  # the thread that writes an element need not be one that read it
    if PENDING:
        due = tl.load(pending_steps_ptr) >= steps_due
        if tl.program_id(0) == 0:
            # Later kernels read the decision here: the state that it hangs on changes under them.
            tl.store(flags_ptr, due.to(tl.int64))
            tl.store(flags_ptr + 1, tl.load(clock_ptr) + due.to(tl.int64))
        code_ok = code_ok & due
    tl.store(cluster_size_ptr + code, size, mask=code_ok)


class Mass(NamedTuple):
    """What ``tree_sum`` needs to add the new sizes.

    Attributes:
        columns: (2^steps,) float32.
        steps: halvings that are left.
        rows: (a power of 2,) int64 that add up to the counts of all codes.
    """

    columns: Tensor
    steps: int
    rows: Tensor


def decay_sizes(
    cluster_size: Tensor,
    counts: Tensor,
    decay: float,
    pending: tuple[Tensor, Tensor, Tensor] | None = None,
    steps_due: int = 0,
) -> Mass:
    """Moves the sizes by the counts.

    With ``pending`` = (pending_steps, clock, flags) only where ``steps_due`` steps are pending;
    ``flags`` says what was decided.
    """
    k = cluster_size.numel()
    elements = triton.next_power_of_2(k)
    columns = min(elements, _MOST_COLUMNS)
    rows = elements // columns
    block = max(min(columns, _ELEMENTS // rows), 1)
    programs = columns // block
    left = torch.empty(columns, dtype=torch.float32, device=counts.device)
    rows_seen = torch.empty(programs, dtype=torch.int64, device=counts.device)
    with torch.cuda.device_of(counts):
        _decay_sizes_kernel[(programs,)](
            cluster_size,
            counts,
            left,
            rows_seen,
            *(pending or (None, None, None)),
            k,
            steps_due,
            decay,
            1.0 - decay,
            PENDING=pending is not None,
            ROWS=rows,
            STEPS=rows.bit_length() - 1,
            COLUMNS=columns,
            BLOCK=block,
            enable_fp_fusion=False,
        )
    return Mass(left, columns.bit_length() - 1, rows_seen)
