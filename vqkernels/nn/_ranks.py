"""What ranks do together: start alike, and add up what they have learnt.

Which collectives run depends on options and on flags that are equal on all ranks, never on data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vqkernels import distributed, ops
from vqkernels.distributed import Group, Statistics
from vqkernels.options import Gradient

if TYPE_CHECKING:
    from vqkernels.nn._learned_codebook import LearnedCodebook
    from vqkernels.nn._quantizer import Learnt


def start_alike(codebooks: Sequence[LearnedCodebook], draws: Tensor | None = None) -> None:
    """Gives codebooks that have not trained with other ranks yet the state of the first rank.

    One collective per process group. Seeds may differ between ranks, and so may what was loaded.
    ``draws``, what the owner of the codebooks counts its draws with, goes along with the first.
    """
    for codebook in codebooks:
        _refuse_sharding(codebook)
    waiting: dict[str, list[LearnedCodebook]] = {}
    for codebook in codebooks:
        group = None if codebook._alike else codebook._group
        if group is not None:
            waiting.setdefault(group.name, []).append(codebook)
    for name, members in waiting.items():
        state = [tensor for member in members for tensor in member._state_but_initialised()]
        if draws is not None and members[0] is codebooks[0]:
            state.append(draws)
        initialised = [member.initialised for member in members]
        with torch.no_grad():
            ops.replicate_(state, initialised, [member._owner_key for member in members], name)


def _refuse_sharding(codebook: LearnedCodebook) -> None:
    """In a forward, a parameter that FSDP shards is a copy: what is written there is lost."""
    sharded = getattr(codebook, "_is_fsdp_managed_module", False)
    if not sharded or not isinstance(codebook.update, Gradient):
        return
    if not codebook._init_done:
        raise RuntimeError(
            f"init must be done before fully_shard with update={codebook.update}, got a sharded "
            "codebook that is not initialised: call init_codebook(x) on every rank first"
        )
    if codebook.revive is not None:
        raise RuntimeError(
            f"revive must be None with update={codebook.update} under fully_shard, which has no "
            f"place to write a code to, got {codebook.revive}"
        )


def reduced(learnt: Learnt) -> Learnt:
    """``learnt`` summed over ranks: one collective per process group, for all its codebooks."""
    # A frozen codebook keeps nothing, so there is nothing to add up.
    groups = [None if book.update is None else book._group for book, _ in learnt]
    if not any(groups):
        return learnt
    result = list(learnt)
    for group in dict.fromkeys(groups):
        if group is None:
            continue
        at = [number for number, other in enumerate(groups) if other == group]
        summed = reduce([learnt[number][1] for number in at], group)
        for number, statistics in zip(at, summed, strict=True):
            result[number] = (learnt[number][0], statistics)
    return result


@torch.no_grad()
def reduce(statistics: list[Statistics], group: Group) -> list[Statistics]:
    """The statistics of all ranks, by one collective."""
    packed = distributed.pack(statistics, group)
    ops.all_reduce_(packed, group.name)
    return distributed.unpack(packed, statistics)
