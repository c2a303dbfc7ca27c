"""kmeans_start_ and kmeans_step_: the data-dependent codebook initialisation, one move at a time.

Both act only while the codebook is not initialised and a usable row was seen: device predicates,
so that the ops may stay in a captured or compiled step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels.ops._library import define
from vqkernels.ops.normalize_codes import normalize_codes


def _start_impl(codebook: Tensor, initialised: Tensor, rows: Tensor, found: Tensor) -> None:
    """Code k starts as usable row k mod ``found``."""
    active = (initialised == 0) & (found > 0)
    k = torch.arange(codebook.shape[0], device=codebook.device)
    seeds = rows[k % found.clamp(min=1)].to(codebook.dtype)
    codebook.copy_(torch.where(active, seeds, codebook))


def _start_fake(codebook: Tensor, initialised: Tensor, rows: Tensor, found: Tensor) -> None:
    return None


kmeans_start_ = define(
    "kmeans_start_(Tensor(a!) codebook, Tensor initialised, Tensor rows, Tensor found) -> ()",
    _start_impl,
    _start_fake,
)


def _step_impl(
    codebook: Tensor,
    cluster_size: Tensor | None,
    embed_sum: Tensor | None,
    initialised: Tensor,
    counts: Tensor,
    sums: Tensor,
    metric: str,
) -> None:
    """One Lloyd iteration: each code becomes the mean of its rows, an empty one stays.

    cluster_size = max(counts, 1) and embed_sum = codebook * cluster_size: with an unscaled sum the
    first EMA update would pull every code to the origin.
    """
    active = (initialised == 0) & (counts.sum() > 0)
    filled = active & (counts > 0)
    means = (sums.double() / counts.clamp(min=1)[:, None]).to(codebook.dtype)
    if metric == "cosine":
        means, _ = normalize_codes(means)
    codebook.copy_(torch.where(filled[:, None], means, codebook))
    if cluster_size is None:
        return
    size = counts.clamp(min=1).to(cluster_size.dtype)
    cluster_size.copy_(torch.where(active, size, cluster_size))
    if embed_sum is not None:
        embed_sum.copy_(torch.where(active, codebook * size[:, None], embed_sum))


def _step_fake(
    codebook: Tensor,
    cluster_size: Tensor | None,
    embed_sum: Tensor | None,
    initialised: Tensor,
    counts: Tensor,
    sums: Tensor,
    metric: str,
) -> None:
    return None


kmeans_step_ = define(
    "kmeans_step_(Tensor(a!) codebook, Tensor(b!)? cluster_size, Tensor(c!)? embed_sum, "
    "Tensor initialised, Tensor counts, Tensor sums, str metric) -> ()",
    _step_impl,
    _step_fake,
)
