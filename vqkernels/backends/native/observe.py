"""observe: stores the statistics of a step."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels.backends.native._arguments import pointer, threads
from vqkernels.backends.native._core import core
from vqkernels.backends.native._state import Expected, lie, wrote


def can_observe(
    pending_counts: Tensor,
    pending_sums: Tensor | None,
    pending_rows: Tensor | None,
    pending_steps: Tensor,
    counts: Tensor,
    sums: Tensor | None,
    rows: Tensor | None,
    found: Tensor | None,
) -> bool:
    """Whether ``observe`` can work on these where they lie; it reads and writes by pointer."""
    (k,), d = counts.shape, next((t.shape[1] for t in (sums, rows) if t is not None), 0)
    r = 0 if rows is None else rows.shape[0]
    floats: Expected = [(pending_counts, (k,)), (sums, (k, d)), (rows, (r, d))]
    floats += [(pending_sums, (k, d))] if sums is not None else []
    floats += [(pending_rows, (r, d))] if rows is not None else []
    whole: Expected = [(counts, (k,)), (pending_steps, ()), (found, ())]
    return lie(torch.float32, floats) and lie(torch.int64, whole)


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
    values = sums if sums is not None else rows
    dim = 0 if values is None else values.shape[1]
    core.observe(
        pending_counts.data_ptr(),
        0 if sums is None else pointer(pending_sums),
        0 if rows is None else pointer(pending_rows),
        pending_steps.data_ptr(),
        counts.data_ptr(),
        pointer(sums),
        pointer(rows),
        pointer(found),
        counts.shape[0],
        dim,
        0 if rows is None else rows.shape[0],
        threads(0 if sums is None else sums.numel()),
    )
    wrote(pending_counts, pending_sums, pending_rows, pending_steps)
