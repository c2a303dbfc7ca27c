"""advance_ in Triton: sizes, ages, codes, revival, each a launch; the bits of ``in_torch``.

Whether the update is due is decided on the device, once, by the first launch. With cosine the
moved codes are normalised before the revival.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vqkernels._in_place import wrote
from vqkernels.backends.triton._mass import Mass, decay_sizes, tree_sum
from vqkernels.backends.triton._tiles import tile_of_length
from vqkernels.backends.triton.ema_update import move_codes
from vqkernels.backends.triton.normalize_codes import write_normalized

_BEFORE = 1024
_AGES = 1024
_NEVER = (1 << 63) - 1


@triton.jit
def _limit(columns_ptr, threshold, quarter, COLUMNS: tl.constexpr, STEPS: tl.constexpr):
    """A size below this is a dead code's; ``quarter`` is 4 * K."""
    mean = tree_sum(columns_ptr, COLUMNS, STEPS)
    mean = tl.div_rn(mean, mean * 0 + quarter)
    return tl.where(mean > threshold, threshold, mean)


@triton.jit
def _dead_codes(
    cluster_size_ptr,
    idle_ptr,
    frozen_ptr,
    flags_ptr,
    code,
    num_codes,
    limit,
    idle_limit,
    revive_every,
):
    """Which of these codes are dead; none when no check is due."""
    check = (tl.load(flags_ptr) != 0) & (tl.load(flags_ptr + 1) % revive_every == 0)
    inside = (code < num_codes) & check
    dead = tl.load(cluster_size_ptr + code, mask=inside, other=0.0) < limit
    if idle_ptr is not None:
        idle = tl.load(idle_ptr + code, mask=inside, other=0)
        dead = dead | (idle >= idle_limit)
    if frozen_ptr is not None:
        dead = dead & (tl.load(frozen_ptr + code, mask=inside, other=0) == 0)
    return inside & dead


@triton.jit(do_not_specialize=["num_codes"])
def _age_kernel(
    idle_ptr,  # (K,) int64 | None
    counts_ptr,  # (K,) fp32, cleared where due
    rows_ptr,  # (PARTS,) int64, see _mass
    pending_steps_ptr,  # () int64
    clock_ptr,  # () int64
    flags_ptr,  # (2,) int64, see _mass
    num_codes,
    PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    due = tl.load(flags_ptr) != 0
    code = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    code_ok = (code < num_codes) & due
    if idle_ptr is not None:
        chosen = tl.load(counts_ptr + code, mask=code_ok, other=0.0) > 0
        idle = tl.load(idle_ptr + code, mask=code_ok, other=0)
        idle = idle + tl.sum(tl.load(rows_ptr + tl.arange(0, PARTS)), axis=0)
        tl.debug_barrier()  # the thread that writes an element need not be one that read it
        tl.store(idle_ptr + code, tl.where(chosen, 0, idle), mask=code_ok)
    tl.store(counts_ptr + code, tl.zeros((BLOCK,), tl.float32), mask=code_ok)
    if tl.program_id(0) == 0:
        tl.store(pending_steps_ptr, 0, mask=due)
        tl.store(clock_ptr, tl.load(flags_ptr + 1))


@triton.jit(do_not_specialize=["num_codes", "idle_limit", "revive_every"])
def _count_dead_kernel(
    cluster_size_ptr,  # (K,) fp32, the new sizes
    idle_ptr,  # (K,) int64 | None
    frozen_ptr,  # (K,) int64 | None
    columns_ptr,  # (COLUMNS,) fp32, see _mass
    flags_ptr,  # (2,) int64, see _mass
    dead_ptr,  # (parts,) int32
    num_codes,
    threshold,
    quarter,
    idle_limit,
    revive_every,
    COLUMNS: tl.constexpr,
    STEPS: tl.constexpr,
    PART: tl.constexpr,
):
    code = tl.program_id(0) * PART + tl.arange(0, PART)
    limit = _limit(columns_ptr, threshold, quarter, COLUMNS, STEPS)
    state = (cluster_size_ptr, idle_ptr, frozen_ptr, flags_ptr)
    dead = _dead_codes(*state, code, num_codes, limit, idle_limit, revive_every)
    tl.store(dead_ptr + tl.program_id(0), tl.sum(dead.to(tl.int32), axis=0))


@triton.jit(do_not_specialize=["num_codes", "num_candidates", "idle_limit", "revive_every"])
def _revive_kernel(
    codebook_ptr,  # (K, D) fp32
    cluster_size_ptr,  # (K,) fp32
    embed_sum_ptr,  # (K, D) fp32 | None
    idle_ptr,  # (K,) int64 | None
    revived_ptr,  # () int64 | None
    frozen_ptr,  # (K,) int64 | None
    candidates_ptr,  # (R, D) fp32
    columns_ptr,  # (COLUMNS,) fp32, see _mass
    flags_ptr,  # (2,) int64, see _mass
    dead_ptr,  # (parts,) int32, dead codes of every part
    num_codes,
    num_candidates,
    dim,
    threshold,
    quarter,
    idle_limit,
    revive_every,
    COLUMNS: tl.constexpr,
    STEPS: tl.constexpr,
    BEFORE: tl.constexpr,
    PART: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    part = tl.program_id(0)
    code = part.to(tl.int64) * PART + tl.arange(0, PART)
    limit = _limit(columns_ptr, threshold, quarter, COLUMNS, STEPS)
    state = (cluster_size_ptr, idle_ptr, frozen_ptr, flags_ptr)
    dead = _dead_codes(*state, code, num_codes, limit, idle_limit, revive_every)
    before = tl.zeros((BEFORE,), tl.int64)
    for start in range(0, part, BEFORE):
        other = start + tl.arange(0, BEFORE)
        before += tl.load(dead_ptr + other, mask=other < part, other=0).to(tl.int64)
    # The j-th dead code, in ascending order, takes candidate j mod R.
    turn = tl.sum(before, axis=0) + tl.cumsum(dead.to(tl.int64), axis=0) - 1
    candidate = tl.maximum(turn, 0) % num_candidates
    for start in range(0, dim, BLOCK_D):
        column = start + tl.arange(0, BLOCK_D)
        inside = dead[:, None] & (column < dim)[None, :]
        at = candidate[:, None] * dim + column[None, :]
        value = tl.load(candidates_ptr + at, mask=inside, other=0.0)
        broken = tl.where(tl.abs(value) < float("inf"), 0, 1)
        dead = dead & (tl.max(broken, axis=1) == 0)
    tl.debug_barrier()  # every thread knows the dead codes before one changes a size
    tl.store(cluster_size_ptr + code, tl.zeros((PART,), tl.float32) + limit, mask=dead)
    if idle_ptr is not None:
        tl.store(idle_ptr + code, tl.zeros((PART,), tl.int64), mask=dead)
    if revived_ptr is not None:
        count = tl.sum(dead.to(tl.int64), axis=0)
        tl.atomic_add(revived_ptr, count, mask=count > 0)
    for start in range(0, dim, BLOCK_D):
        column = start + tl.arange(0, BLOCK_D)
        inside = dead[:, None] & (column < dim)[None, :]
        at = candidate[:, None] * dim + column[None, :]
        value = tl.load(candidates_ptr + at, mask=inside, other=0.0)
        at = code[:, None] * dim + column[None, :]
        tl.store(codebook_ptr + at, value, mask=inside)
        if embed_sum_ptr is not None:
            tl.store(embed_sum_ptr + at, value * limit, mask=inside)


def advance(
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
) -> None:
    """Applies what is pending when at least ``steps_due`` steps are, else changes nothing."""
    flags = torch.empty(2, dtype=torch.int64, device=clock.device)
    pending = (pending_steps, clock, flags)
    mass = decay_sizes(cluster_size, pending_counts, decay, pending, steps_due)
    _age(idle, pending_counts, mass, *pending)
    if embed_sum is not None and pending_sums is not None:
        state = (codebook, cluster_size, embed_sum, pending_sums)
        move_codes(*state, mass, decay, epsilon, flags, frozen)
        if metric == "cosine":
            write_normalized(codebook, codebook, due=flags, frozen=frozen)
    if pending_rows is not None:
        sums = None if pending_sums is None else embed_sum
        marks = (idle, revived, frozen)
        limits = (threshold, float(4 * len(codebook)), idle_limit or _NEVER, revive_every)
        _revive(codebook, cluster_size, sums, *marks, pending_rows, mass, flags, limits)
    wrote(codebook, cluster_size, embed_sum, pending_counts, pending_sums)
    wrote(pending_steps, clock, idle, revived)


def _age(
    idle: Tensor | None,
    pending_counts: Tensor,
    mass: Mass,
    pending_steps: Tensor,
    clock: Tensor,
    flags: Tensor,
) -> None:
    """What a due update does to the counters."""
    k = pending_counts.numel()
    counters = (pending_steps, clock, flags)
    with torch.cuda.device_of(clock):
        _age_kernel[(triton.cdiv(k, _AGES),)](
            idle, pending_counts, mass.rows, *counters, k, PARTS=mass.rows.numel(), BLOCK=_AGES
        )


def _revive(
    codebook: Tensor,
    cluster_size: Tensor,
    embed_sum: Tensor | None,
    idle: Tensor | None,
    revived: Tensor | None,
    frozen: Tensor | None,
    candidates: Tensor,
    mass: Mass,
    flags: Tensor,
    limits: tuple[float, float, int, int],
) -> None:
    """``limits``: threshold, 4 * K, idle_limit and revive_every."""
    k, dim = codebook.shape
    part, block_d = tile_of_length(dim)
    parts = triton.cdiv(k, part)
    dead = torch.empty(parts, dtype=torch.int32, device=codebook.device)
    found = (mass.columns, flags, dead)
    tree = {"COLUMNS": mass.columns.numel(), "STEPS": mass.steps, "enable_fp_fusion": False}
    with torch.cuda.device_of(codebook):
        _count_dead_kernel[(parts,)](
            cluster_size, idle, frozen, *found, k, *limits, PART=part, **tree
        )
        _revive_kernel[(parts,)](
            codebook,
            cluster_size,
            embed_sum,
            idle,
            revived,
            frozen,
            candidates,
            *found,
            k,
            len(candidates),
            dim,
            *limits,
            BEFORE=_BEFORE,
            PART=part,
            BLOCK_D=block_d,
            **tree,
        )
