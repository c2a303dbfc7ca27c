"""observe_ in Triton: the statistics of a step stored in one launch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vqkernels._in_place import wrote

_BLOCK = 1024
_COUNTED = 2048


@triton.jit(do_not_specialize=["num_codes", "num_sums", "num_values"])
def _observe_kernel(
    pending_counts_ptr,  # (K,) fp32
    pending_sums_ptr,  # (K, D) fp32 | None
    pending_rows_ptr,  # (R, D) fp32 | None
    pending_steps_ptr,  # () int64
    counts_ptr,  # (K,) int64
    sums_ptr,  # (K, D) fp32 | None
    rows_ptr,  # (R, D) fp32 | None
    found_ptr,  # () int64 | None
    num_codes,
    num_sums,  # K * D
    num_values,  # R * D
    COUNTED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    program = tl.program_id(0)
    at = program.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < num_codes
    count = tl.load(counts_ptr + at, mask=inside, other=0).to(tl.float32)
    pending = tl.load(pending_counts_ptr + at, mask=inside, other=0.0)
    tl.store(pending_counts_ptr + at, pending + count, mask=inside)
    if sums_ptr is not None:
        inside = at < num_sums
        pending = tl.load(pending_sums_ptr + at, mask=inside, other=0.0)
        pending += tl.load(sums_ptr + at, mask=inside, other=0.0)
        tl.store(pending_sums_ptr + at, pending, mask=inside)
    if rows_ptr is not None:
        inside = (at < num_values) & (tl.load(found_ptr) > 0)
        value = tl.load(rows_ptr + at, mask=inside, other=0.0)
        tl.store(pending_rows_ptr + at, value, mask=inside)
    if program == 0:
        counted = tl.zeros((COUNTED,), tl.int64)
        for start in range(0, num_codes, COUNTED):
            code = start + tl.arange(0, COUNTED)
            counted += tl.load(counts_ptr + code, mask=code < num_codes, other=0)
        step = (tl.sum(counted, axis=0) > 0).to(tl.int64)
        tl.store(pending_steps_ptr, tl.load(pending_steps_ptr) + step)


def observe(
    pending_counts: Tensor,
    pending_sums: Tensor | None,
    pending_rows: Tensor | None,
    pending_steps: Tensor,
    counts: Tensor,
    sums: Tensor | None,
    rows: Tensor | None,
    found: Tensor | None,
) -> None:
    """Adds counts and sums, keeps the newest candidate rows, counts the step."""
    if pending_sums is None:
        sums = None
    if pending_rows is None or found is None:
        rows = None
    num_sums = 0 if sums is None else sums.numel()
    num_values = 0 if rows is None else rows.numel()
    largest = max(counts.numel(), num_sums, num_values)
    with torch.cuda.device_of(counts):
        _observe_kernel[(triton.cdiv(largest, _BLOCK),)](
            pending_counts,
            pending_sums,
            pending_rows,
            pending_steps,
            counts,
            sums,
            rows,
            found,
            counts.numel(),
            num_sums,
            num_values,
            COUNTED=_COUNTED,
            BLOCK=_BLOCK,
        )
    wrote(pending_counts, pending_sums, pending_rows, pending_steps)
