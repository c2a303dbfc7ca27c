"""advance: applies the stored statistics to the codebook."""

from __future__ import annotations

from torch import Tensor

from vqkernels._in_place import wrote
from vqkernels.backends.native._arguments import pointer, threads
from vqkernels.backends.native._core import core


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
    k, d = codebook.shape
    core.advance(
        codebook.data_ptr(),
        cluster_size.data_ptr(),
        pointer(embed_sum),
        pending_counts.data_ptr(),
        pointer(pending_sums),
        pointer(pending_rows),
        pending_steps.data_ptr(),
        clock.data_ptr(),
        pointer(idle),
        pointer(revived),
        pointer(frozen),
        k,
        d,
        0 if pending_rows is None else pending_rows.shape[0],
        decay,
        epsilon,
        steps_due,
        metric == "cosine",
        threshold,
        idle_limit,
        revive_every,
        threads(codebook.numel()),
    )
    wrote(codebook, cluster_size, embed_sum, pending_counts, pending_sums)
    wrote(pending_steps, clock, idle, revived)
