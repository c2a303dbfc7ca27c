"""advance: applies the stored statistics to the codebook."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels.backends.native._arguments import pointer, threads
from vqkernels.backends.native._core import core
from vqkernels.backends.native._state import Expected, lie, wrote


def can_advance(
    codebook: Tensor,
    cluster_size: Tensor,
    embed_sum: Tensor | None,
    pending_counts: Tensor,
    pending_sums: Tensor | None,
    pending_rows: Tensor | None,
    pending_steps: Tensor,
    clock: Tensor,
) -> bool:
    """Whether ``advance`` can work on these where they lie; it reads and writes by pointer."""
    k, d = codebook.shape
    r = 0 if pending_rows is None else pending_rows.shape[0]
    floats: Expected = [(codebook, (k, d)), (embed_sum, (k, d)), (pending_sums, (k, d))]
    floats += [(cluster_size, (k,)), (pending_counts, (k,)), (pending_rows, (r, d))]
    return lie(torch.float32, floats) and lie(torch.int64, [(pending_steps, ()), (clock, ())])


def advance(
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
        k,
        d,
        0 if pending_rows is None else pending_rows.shape[0],
        decay,
        epsilon,
        steps_due,
        metric == "cosine",
        threshold,
        revive_every,
        threads(codebook.numel()),
    )
    wrote(codebook, cluster_size, embed_sum, pending_counts, pending_sums, pending_steps, clock)
