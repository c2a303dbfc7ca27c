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
    idle: Tensor | None,
    revived: Tensor | None,
    frozen: Tensor | None,
    decay: float,
    epsilon: float,
    steps_due: int,
    metric: str,
    threshold: float,
    idle_limit: int,
    revive_every: int,
    whole: Tensor | None = None,
    num_codes: int | None = None,
) -> None:
    """Applies what is pending when at least ``steps_due`` steps are, else changes nothing.

    The condition is a device predicate, never read by the host. Without ``embed_sum`` (a codebook
    trained by the optimizer) only the counts move, and revival is all that touches the codebook.
    ``idle`` counts the rows that the codebook has taken since each code took one. A code is dead
    when its size is below min(threshold, mean size / 4), or, with ``idle_limit`` above 0, when its
    ``idle`` has reached it. A code that ``frozen`` marks is counted, but neither moves nor is
    revived. ``revived`` counts the codes that were. Does nothing in a recompute.

    ``whole``, float64 (2,), and ``num_codes`` are given where these codes are a part of a
    codebook: its mass before the update and the pending rows, and how many codes it has.
    """
    if in_recompute():
        return
    state = (
        *(codebook, cluster_size, embed_sum, pending_counts, pending_sums),
        *(pending_rows, pending_steps, clock, idle, revived, frozen),
    )
    options = (decay, epsilon, steps_due, metric, threshold, idle_limit, revive_every)
    if whole is not None:
        in_torch(*state, *options, whole, num_codes)
        return
    launch = in_torch
    if fits(*state):
        launch = implementation("advance_", in_torch, codebook)
    launch(*state, *options)


def fits(
    codebook: Tensor,
    cluster_size: Tensor,
    embed_sum: Tensor | None,
    pending_counts: Tensor,
    pending_sums: Tensor | None,
    pending_rows: Tensor | None,
    pending_steps: Tensor,
    clock: Tensor,
    idle: Tensor | None,
    revived: Tensor | None,
    frozen: Tensor | None,
) -> bool:
    """Whether a launcher can work on these where they lie."""
    k, d = codebook.shape
    r = 0 if pending_rows is None else pending_rows.shape[0]
    floats: Expected = [(codebook, (k, d)), (embed_sum, (k, d)), (pending_sums, (k, d))]
    floats += [(cluster_size, (k,)), (pending_counts, (k,)), (pending_rows, (r, d))]
    whole: Expected = [(pending_steps, ()), (clock, ()), (revived, ())]
    whole += [(idle, (k,)), (frozen, (k,))]
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
    idle: Tensor | None,
    revived: Tensor | None,
    frozen: Tensor | None,
    decay: float,
    epsilon: float,
    steps_due: int,
    metric: str,
    threshold: float,
    idle_limit: int,
    revive_every: int,
    whole: Tensor | None = None,
    num_codes: int | None = None,
) -> None:
    """The specification, on any device."""
    due = pending_steps >= steps_due
    taken = pending_counts.long().sum() if whole is None else whole[1].long()
    mass = None if whole is None else decayed(whole[0], whole[1], decay).to(cluster_size.dtype)
    if embed_sum is None or pending_sums is None:
        codes, size, total = codebook, decayed(cluster_size, pending_counts, decay), None
    else:
        codes, size, total = moved(
            *(codebook, cluster_size, embed_sum, pending_counts, pending_sums, decay, epsilon),
            *(mass, num_codes),
        )
        if metric == "cosine":
            codes, _ = normalize_codes(codes)
    if frozen is not None:
        codes = torch.where(frozen[:, None] != 0, codebook, codes)
    age = None
    if idle is not None:
        age = torch.where(pending_counts > 0, 0, idle + taken)
    ticked = clock + due.to(clock.dtype)
    if pending_rows is not None:
        mass = fixed_sum(size) if mass is None else mass
        limit = (mass / (4 * (num_codes or size.numel()))).clamp(max=threshold)
        dead = _dead(size, limit, age, idle_limit, frozen) & (ticked % revive_every == 0)
        dead, rows = _replacements(dead, pending_rows)
        codes = torch.where(dead[:, None], rows, codes)
        size = torch.where(dead, limit, size)
        if total is not None:
            total = torch.where(dead[:, None], rows * limit, total)
        if age is not None:
            age = age.masked_fill(dead, 0)
        if revived is not None:
            revived.add_((dead & due).sum())

    state = (codebook, codes), (cluster_size, size), (embed_sum, total), (idle, age)
    for old, new in state:
        if old is not None and new is not None:
            old.copy_(torch.where(due, new, old))
    clock.copy_(ticked)
    taken_since = None if whole is None else whole[1]
    for pending in (pending_counts, pending_sums, pending_steps, taken_since):
        if pending is not None:
            pending.masked_fill_(due, 0)


def _dead(
    size: Tensor, limit: Tensor, idle: Tensor | None, idle_limit: int, frozen: Tensor | None
) -> Tensor:
    dead = size < limit
    if idle is not None and idle_limit > 0:
        dead |= idle >= idle_limit
    if frozen is not None:
        dead &= frozen == 0
    return dead


def _replacements(dead: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
    """Which codes are replaced, and the row for each: the j-th dead code takes candidate j mod R.

    A candidate that is not finite (none has been seen yet) revives nothing.
    """
    turn = (dead.long().cumsum(0) - 1).clamp(min=0) % candidates.shape[0]
    rows = candidates[turn]
    return dead & rows.isfinite().all(dim=1), rows


advance_ = define(
    "advance_(Tensor(a!) codebook, Tensor(b!) cluster_size, Tensor(c!)? embed_sum, "
    "Tensor(d!) pending_counts, Tensor(e!)? pending_sums, Tensor? pending_rows, "
    "Tensor(f!) pending_steps, Tensor(g!) clock, Tensor(h!)? idle, Tensor(i!)? revived, "
    "Tensor? frozen, float decay, float epsilon, int steps_due, str metric, float threshold, "
    "int idle_limit, int revive_every, Tensor(j!)? whole=None, int? num_codes=None) -> ()",
    _impl,
    no_result,
)
