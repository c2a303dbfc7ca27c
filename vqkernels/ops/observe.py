"""observe_: stores the statistics of one training forward until the codebook moves."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels._in_place import Expected, lie
from vqkernels.ops._library import define, in_recompute, no_result
from vqkernels.ops.dispatch import implementation


def _impl(
    pending_counts: Tensor,
    pending_sums: Tensor | None,
    pending_rows: Tensor | None,
    pending_steps: Tensor,
    counts: Tensor,
    sums: Tensor | None,
    rows: Tensor | None,
    found: Tensor | None,
) -> None:
    """Adds counts and sums, keeps the newest candidate rows, counts the step.

    Does nothing in a recompute, and nothing when no row counted (an empty or fully masked batch).
    """
    if in_recompute():
        return
    state = (pending_counts, pending_sums, pending_rows, pending_steps)
    batch = (counts, sums, rows, found)
    launch = in_torch
    if fits(*state, *batch):
        launch = implementation("observe_", in_torch, pending_counts)
    launch(*state, *batch)


def fits(
    pending_counts: Tensor,
    pending_sums: Tensor | None,
    pending_rows: Tensor | None,
    pending_steps: Tensor,
    counts: Tensor,
    sums: Tensor | None,
    rows: Tensor | None,
    found: Tensor | None,
) -> bool:
    """Whether a launcher can work on these where they lie."""
    (k,), d = counts.shape, next((t.shape[1] for t in (sums, rows) if t is not None), 0)
    r = 0 if rows is None else rows.shape[0]
    floats: Expected = [(pending_counts, (k,)), (sums, (k, d)), (rows, (r, d))]
    floats += [(pending_sums, (k, d))] if sums is not None else []
    floats += [(pending_rows, (r, d))] if rows is not None else []
    whole: Expected = [(counts, (k,)), (pending_steps, ()), (found, ())]
    device = counts.device
    return lie(torch.float32, floats, device) and lie(torch.int64, whole, device)


def in_torch(
    pending_counts: Tensor,
    pending_sums: Tensor | None,
    pending_rows: Tensor | None,
    pending_steps: Tensor,
    counts: Tensor,
    sums: Tensor | None,
    rows: Tensor | None,
    found: Tensor | None,
) -> None:
    """The specification, on any device."""
    pending_counts.add_(counts.to(pending_counts.dtype))
    if pending_sums is not None and sums is not None:
        pending_sums.add_(sums)
    if pending_rows is not None and rows is not None and found is not None:
        pending_rows.copy_(torch.where(found > 0, rows, pending_rows))
    pending_steps.add_((counts.sum() > 0).to(pending_steps.dtype))


observe_ = define(
    "observe_(Tensor(a!) pending_counts, Tensor(b!)? pending_sums, Tensor(c!)? pending_rows, "
    "Tensor(d!) pending_steps, Tensor counts, Tensor? sums, Tensor? rows, Tensor? found) -> ()",
    _impl,
    no_result,
)
