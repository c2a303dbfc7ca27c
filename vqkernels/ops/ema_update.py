"""ema_update_: the moving-average codebook update. The formula stands here and nowhere else."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels._in_place import Expected, lie
from vqkernels._numerics import fixed_sum
from vqkernels.ops._library import define, no_result
from vqkernels.ops.dispatch import implementation


def moved(
    codebook: Tensor,
    cluster_size: Tensor,
    embed_sum: Tensor,
    counts: Tensor,
    sums: Tensor,
    decay: float,
    epsilon: float,
    mass: Tensor | None = None,
    num_codes: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """(codebook, cluster_size, embed_sum) after one update.

    s <- g*s + (1-g)*counts and m <- g*m + (1-g)*sums; codebook = m / [(s+eps)/(S+K*eps)*S] with
    S = sum of s (van den Oord et al. 2017, equations 6 to 8, with Laplace smoothing). The smoothed
    size is not stored. A code without any mass (possible with eps = 0) keeps its place.
    ``mass`` and ``num_codes`` are S and K where these codes are a part of a codebook.
    """
    size = decayed(cluster_size, counts, decay)
    total_sum = decay * embed_sum + (1.0 - decay) * sums.to(embed_sum.dtype)
    mass = fixed_sum(size) if mass is None else mass
    num_codes = size.numel() if num_codes is None else num_codes
    smoothed = (size + epsilon) / (mass + num_codes * epsilon) * mass
    codes = torch.where(smoothed[:, None] > 0, total_sum / smoothed[:, None], codebook)
    return codes, size, total_sum


def decayed(cluster_size: Tensor, counts: Tensor, decay: float) -> Tensor:
    """The moving average of the rows per code."""
    return decay * cluster_size + (1.0 - decay) * counts.to(cluster_size.dtype)


def _impl(
    codebook: Tensor,
    cluster_size: Tensor,
    embed_sum: Tensor,
    counts: Tensor,
    sums: Tensor,
    decay: float,
    epsilon: float,
) -> None:
    k, d = codebook.shape
    floats: Expected = [(codebook, (k, d)), (cluster_size, (k,)), (embed_sum, (k, d))]
    floats += [(sums, (k, d))]
    whole: Expected = [(counts, (k,))]
    launch, device = in_torch, codebook.device
    if lie(torch.float32, floats, device) and lie(counts.dtype, whole, device):
        launch = implementation("ema_update_", in_torch, codebook)
    launch(codebook, cluster_size, embed_sum, counts, sums, decay, epsilon)


def in_torch(
    codebook: Tensor,
    cluster_size: Tensor,
    embed_sum: Tensor,
    counts: Tensor,
    sums: Tensor,
    decay: float,
    epsilon: float,
) -> None:
    """The specification, on any device."""
    new_codebook, new_size, new_sum = moved(
        codebook, cluster_size, embed_sum, counts, sums, decay, epsilon
    )
    codebook.copy_(new_codebook)
    cluster_size.copy_(new_size)
    embed_sum.copy_(new_sum)


ema_update_ = define(
    "ema_update_(Tensor(a!) codebook, Tensor(b!) cluster_size, Tensor(c!) embed_sum, "
    "Tensor counts, Tensor sums, float decay, float epsilon) -> ()",
    _impl,
    no_result,
)
