"""The k-means loop that initialises a codebook from the first batch."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels import ops

_ITERATIONS = 10
_ROWS_PER_CODE = 256
_SEED = 0


def initialise_(
    codebook: Tensor,
    cluster_size: Tensor | None,
    embed_sum: Tensor | None,
    initialised: Tensor,
    owner: Tensor,
    frozen: Tensor | None,
    x: Tensor,
    mask: Tensor | None,
    *,
    metric: str,
    channel_dim: int,
    backend: str | None,
) -> None:
    """Lloyd's iterations on at most 256*K rows of x; then ``initialised`` is 1.

    Changes nothing when ``initialised`` is already 1 or no row is usable. The rows are picked by a
    counter-based permutation: the same batch always gives the same codebook. Codes that ``frozen``
    marks stay where they are and take rows all the same. ``owner`` is told when the codebook is
    initialised.
    """
    k = codebook.shape[0]
    count = min(x.numel() // max(x.shape[channel_dim], 1), _ROWS_PER_CODE * k)
    if count == 0:
        return
    clock = torch.zeros((), dtype=torch.int64, device=x.device)
    rows, found = ops.sample_rows(x, mask, clock, count, _SEED, metric, channel_dim)
    usable = torch.arange(count, device=x.device) < found
    ops.kmeans_start_(codebook, initialised, rows, found, frozen)
    for _ in range(_ITERATIONS):
        indices, _ = ops.nearest_code(rows, codebook, None, metric, 1, backend)
        counts, sums = ops.code_sums(rows, indices, k, usable, metric, 1, None)
        state = (codebook, cluster_size, embed_sum, initialised)
        ops.kmeans_step_(*state, counts, sums, frozen, metric)
    ops.kmeans_finish_(initialised, found, owner)
