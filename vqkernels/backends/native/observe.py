"""observe: stores the statistics of a step."""

from __future__ import annotations

from torch import Tensor

from vqkernels._in_place import wrote
from vqkernels.backends.native._arguments import pointer, threads
from vqkernels.backends.native._core import core


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
