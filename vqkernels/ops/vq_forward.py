"""vq_forward: assign, gather, squared error, counts and sums of one training or eval step."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels._layout import like_x, row_shape
from vqkernels._numerics import wide
from vqkernels.backends import reference
from vqkernels.ops._library import define
from vqkernels.ops.dispatch import choose, launcher
from vqkernels.ops.nearest_code import search

Step = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def _impl(
    x: Tensor,
    codebook: Tensor,
    prepared: list[Tensor] | None,
    mask: Tensor | None,
    metric: str,
    channel_dim: int,
    statistics: bool,
    backend: str | None,
) -> Step:
    options = (mask, metric, channel_dim, statistics)
    if choose("vq_forward", x, codebook, backend) == "reference":
        # Its search may be that of a backend which has no more than the search.
        indices, _ = search(x, codebook, prepared, metric, channel_dim, backend)
        return reference.vq_forward(x, codebook, indices, *options)
    chosen = launcher("vq_forward", x, codebook, backend)
    return chosen.vq_forward(x, codebook, prepared, *options)


def _fake(
    x: Tensor,
    codebook: Tensor,
    prepared: list[Tensor] | None,
    mask: Tensor | None,
    metric: str,
    channel_dim: int,
    statistics: bool,
    backend: str | None,
) -> Step:
    return like_step(x, codebook, channel_dim, statistics)


def like_step(x: Tensor, codebook: Tensor, channel_dim: int, statistics: bool) -> Step:
    """Uninitialised results of a step, for fakes."""
    k, d = codebook.shape
    dtype = wide(x.dtype, codebook.dtype)
    return (
        like_x(x, dtype),
        x.new_empty(row_shape(x, channel_dim), dtype=torch.int64),
        x.new_empty((), dtype=dtype),
        x.new_empty(k, dtype=torch.int64),
        x.new_empty(k if statistics else 0, d, dtype=dtype),
    )


vq_forward = define(
    "vq_forward(Tensor x, Tensor codebook, Tensor[]? prepared, Tensor? mask, str metric, "
    "int channel_dim, bool statistics, str? backend) "
    "-> (Tensor quantized, Tensor indices, Tensor mse, Tensor counts, Tensor sums)",
    _impl,
    _fake,
)
