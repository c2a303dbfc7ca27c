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
    whole: Tensor | None = None,
    totals: Tensor | None = None,
) -> None:
    """Adds counts and sums, keeps the newest candidate rows, counts the step.

    Does nothing in a recompute, and nothing when no row counted (an empty or fully masked batch).
    ``totals``, float64 (2,), is given where the codes are a part of a codebook: its mass and the
    rows of this batch that it took, for ``whole`` of ``advance_``.
    """
    if in_recompute():
        return
    state = (pending_counts, pending_sums, pending_rows, pending_steps)
    batch = (counts, sums, rows, found)
    if whole is not None:
        in_torch(*state, *batch, whole, totals)
        return
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
    whole: Tensor | None = None,
    totals: Tensor | None = None,
) -> None:
    """The specification, on any device."""
    pending_counts.add_(counts.to(pending_counts.dtype))
    if pending_sums is not None and sums is not None:
        pending_sums.add_(sums)
    if pending_rows is not None and rows is not None and found is not None:
        pending_rows.copy_(torch.where(found > 0, rows, pending_rows))
    taken = counts.sum() if totals is None else totals[1]
    pending_steps.add_((taken > 0).to(pending_steps.dtype))
    if whole is not None and totals is not None:
        whole.copy_(torch.stack([totals[0], whole[1] + totals[1]]))


observe_ = define(
    "observe_(Tensor(a!) pending_counts, Tensor(b!)? pending_sums, Tensor(c!)? pending_rows, "
    "Tensor(d!) pending_steps, Tensor counts, Tensor? sums, Tensor? rows, Tensor? found, "
    "Tensor(e!)? whole=None, Tensor? totals=None) -> ()",
    _impl,
    no_result,
)
