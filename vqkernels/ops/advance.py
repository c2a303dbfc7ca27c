"""advance_: moves the codebook by the pending statistics, then revives dead codes."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels._in_place import Expected, lie
from vqkernels._numerics import fixed_sum
from vqkernels.ops._library import define, in_recompute, no_result
from vqkernels.ops.dispatch import implementation
from vqkernels.ops.ema_update import decayed, moved
from vqkernels.ops.normalize_codes import normalize_codes


def _impl(
    codebook: Tensor,
    cluster_size: Tensor,
    embed_sum: Tensor | None,
    pending_counts: Tensor,
    pending_sums: Tensor | None,
    pending_rows: Tensor | None,
    pending_steps: Tensor,
    clock: Tensor,
    decay: float,
    epsilon: float,
    steps_due: int,
    metric: str,
    threshold: float,
    revive_every: int,
) -> None:
    """Applies what is pending when at least ``steps_due`` steps are, else changes nothing.

    The condition is a device predicate, never read by the host. Without ``embed_sum`` (a codebook
    trained by the optimizer) only the counts move, and revival is all that touches the codebook.
    Does nothing in a recompute.
    """
    if in_recompute():
        return
    state = (
        *(codebook, cluster_size, embed_sum, pending_counts, pending_sums),
        *(pending_rows, pending_steps, clock),
    )
    launch = in_torch
    if fits(*state):
        launch = implementation("advance_", in_torch, codebook)
    launch(*state, decay, epsilon, steps_due, metric, threshold, revive_every)


def fits(
    codebook: Tensor,
    cluster_size: Tensor,
    embed_sum: Tensor | None,
    pending_counts: Tensor,
    pending_sums: Tensor | None,
    pending_rows: Tensor | None,
    pending_steps: Tensor,
    clock: Tensor,
) -> bool:
    """Whether a launcher can work on these where they lie."""
    k, d = codebook.shape
    r = 0 if pending_rows is None else pending_rows.shape[0]
    floats: Expected = [(codebook, (k, d)), (embed_sum, (k, d)), (pending_sums, (k, d))]
    floats += [(cluster_size, (k,)), (pending_counts, (k,)), (pending_rows, (r, d))]
    whole: Expected = [(pending_steps, ()), (clock, ())]
    device = codebook.device
    return lie(torch.float32, floats, device) and lie(torch.int64, whole, device)


def in_torch(
    codebook: Tensor,
    cluster_size: Tensor,
    embed_sum: Tensor | None,
    pending_counts: Tensor,
    pending_sums: Tensor | None,
    pending_rows: Tensor | None,
    pending_steps: Tensor,
    clock: Tensor,
    decay: float,
    epsilon: float,
    steps_due: int,
    metric: str,
    threshold: float,
    revive_every: int,
) -> None:
    """The specification, on any device."""
    due = pending_steps >= steps_due
    if embed_sum is None or pending_sums is None:
        codes, size, total = codebook, decayed(cluster_size, pending_counts, decay), None
    else:
        codes, size, total = moved(
            codebook, cluster_size, embed_sum, pending_counts, pending_sums, decay, epsilon
        )
        if metric == "cosine":
            codes, _ = normalize_codes(codes)
    ticked = clock + due.to(clock.dtype)
    if pending_rows is not None:
        check = ticked % revive_every == 0
        codes, size, total = _revive(codes, size, total, pending_rows, threshold, check)

    codebook.copy_(torch.where(due, codes, codebook))
    cluster_size.copy_(torch.where(due, size, cluster_size))
    if embed_sum is not None and total is not None:
        embed_sum.copy_(torch.where(due, total, embed_sum))
    clock.copy_(ticked)
    for pending in (pending_counts, pending_sums, pending_steps):
        if pending is not None:
            pending.masked_fill_(due, 0)


def _revive(
    codes: Tensor,
    size: Tensor,
    total: Tensor | None,
    candidates: Tensor,
    threshold: float,
    check: Tensor,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The j-th dead code becomes candidate j mod R, with the limit as its size.

    A candidate that is not finite (none has been seen yet) revives nothing.
    """
    limit = (fixed_sum(size) / (4 * size.numel())).clamp(max=threshold)
    dead = (size < limit) & check
    turn = (dead.long().cumsum(0) - 1).clamp(min=0) % candidates.shape[0]
    rows = candidates[turn]
    dead &= rows.isfinite().all(dim=1)
    codes = torch.where(dead[:, None], rows, codes)
    size = torch.where(dead, limit, size)
    if total is not None:
        total = torch.where(dead[:, None], rows * limit, total)
    return codes, size, total


advance_ = define(
    "advance_(Tensor(a!) codebook, Tensor(b!) cluster_size, Tensor(c!)? embed_sum, "
    "Tensor(d!) pending_counts, Tensor(e!)? pending_sums, Tensor? pending_rows, "
    "Tensor(f!) pending_steps, Tensor(g!) clock, float decay, float epsilon, int steps_due, "
    "str metric, float threshold, int revive_every) -> ()",
    _impl,
    no_result,
)
