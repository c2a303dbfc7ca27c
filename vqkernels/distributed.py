"""What ranks exchange: over which group, what goes into one collective, and what comes back.

Nothing here communicates. The collective itself is an op, so that it may stand in compiled steps.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from vqkernels._layout import flagged_first


class Statistics(NamedTuple):
    """What one training forward stores for one codebook.

    Attributes:
        counts: int64 (K,), valid rows that chose each code.
        sums: float32 (K, D), their sums; None where no moving average is kept.
        rows: float32 (R, D), candidates for revival; None without revival.
        found: int64 0-d, how many of ``rows``, from the front, are usable; None without revival.
    """

    counts: Tensor
    sums: Tensor | None
    rows: Tensor | None
    found: Tensor | None


class Group(NamedTuple):
    """The ranks that learn one codebook together, as one of them sees them.

    Attributes:
        name: what torch registers the process group under.
        rank: this process's, in the group.
        size: W, at least 2.
    """

    name: str
    rank: int
    size: int


def name_of(process_group: object, argument: str = "process_group") -> str | None:
    """The name of a ``process_group`` argument, which copies and pickles as a group does not."""
    if process_group is None:
        return None
    if dist.is_available():
        if isinstance(process_group, dist.ProcessGroup):
            return str(process_group.group_name)
        if process_group is dist.GroupMember.NON_GROUP_MEMBER:
            raise ValueError(
                f"{argument} must be a group that this rank belongs to, "
                "got GroupMember.NON_GROUP_MEMBER"
            )
    raise TypeError(
        f"{argument} must be a torch.distributed.ProcessGroup or None, got {process_group!r}"
    )


def resolve(name: str) -> dist.ProcessGroup:
    """The process group of that name.

    Raises:
        RuntimeError: this process has none.
    """
    try:
        return dist.distributed_c10d._resolve_process_group(name)  # type: ignore[attr-defined,arg-type]
    except (RuntimeError, ValueError, AttributeError) as error:
        raise RuntimeError(
            f"process_group must exist in this process, got one named {name!r} that does not: "
            "make it and assign it to the quantizer's process_group"
        ) from error


def seed_of_rank(seed: int, group: Group | None) -> int:
    """The seed of what every rank draws for its own batch: the 32 bits that the hash takes of it.

    No seed is too large for an op then.
    """
    odd = 0x9E3779B9  # apart in all of these bits
    return (seed if group is None else seed + group.rank * odd) & 0xFFFFFFFF


@torch.compiler.assume_constant_result
def group_of(name: str | None) -> Group | None:
    """Over whom to reduce: the named group, or the default one; None where a rank is alone."""
    if name is None:
        if not (dist.is_available() and dist.is_initialized()):
            return None
        process_group = dist.group.WORLD
        assert process_group is not None
    else:
        process_group = resolve(name)
    rank, size = dist.get_rank(process_group), dist.get_world_size(process_group)
    return Group(str(process_group.group_name), rank, size) if size > 1 else None


def pack(statistics: list[Statistics], group: Group) -> Tensor:
    """This rank's share of ``statistics``: one float32 vector, to be summed over the ranks."""
    parts: list[Tensor] = []
    for counts, sums, rows, found in statistics:
        parts.append(counts)
        if sums is not None:
            parts.append(sums)
        if rows is not None and found is not None:
            parts += _share(rows, found, group)
    return torch.cat([part.reshape(-1).to(torch.float32) for part in parts])


def unpack(packed: Tensor, like: list[Statistics]) -> list[Statistics]:
    """The statistics of all ranks from the sum of what they packed; ``like`` has the shapes."""
    start = 0

    def take(like: Tensor) -> Tensor:
        nonlocal start
        part = packed[start : start + like.numel()]
        start += like.numel()
        return part.reshape(like.shape)

    reduced = []
    for counts, sums, rows, _ in like:
        counts = take(counts).to(counts.dtype)
        sums = None if sums is None else take(sums)
        found = None
        if rows is not None:
            rows, filled = take(rows), take(rows[:, 0]) > 0
            order, found = flagged_first(filled)
            rows = rows[order]  # as sample_rows returns them
        reduced.append(Statistics(counts, sums, rows, found))
    return reduced


def _share(rows: Tensor, found: Tensor, group: Group) -> tuple[Tensor, Tensor]:
    """Candidate j comes from rank j mod W, its row number j // W, if that one is usable.

    Everywhere else zeros: the ranks' shares add up to the candidates and the flags of the usable
    ones, whichever ranks have rows.
    """
    slot = torch.arange(len(rows), device=rows.device)
    number = slot // group.size
    filled = (slot % group.size == group.rank) & (number < found)
    return torch.where(filled[:, None], rows[number], 0), filled
