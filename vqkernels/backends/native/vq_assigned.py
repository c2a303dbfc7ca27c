"""vq_assigned: the pass of vq_forward over x, for codes that are given."""

from __future__ import annotations

from torch import Tensor

from vqkernels.backends.native.vq_forward import vq_forward


def vq_assigned(
    x: Tensor,
    codebook: Tensor,
    indices: Tensor,
    mask: Tensor | None,
    metric: str,
    channel_dim: int,
    statistics: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return vq_forward(x, codebook, None, mask, metric, channel_dim, statistics, given=indices)
