"""kmeans_start_, kmeans_step_, kmeans_finish_: the data-dependent codebook initialisation.

They act only while the codebook is not initialised and a usable row was seen: device predicates,
so that the ops may stand in a compiled step. The last one also tells the module that owns the
codebook, which then leaves all of them out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels.ops import _owners
from vqkernels.ops._library import define, no_result
from vqkernels.ops.normalize_codes import normalize_codes


def _may_move(active: Tensor, frozen: Tensor | None) -> Tensor:
    """``active``, () or (K,), without the frozen codes; (1, 1) or (K, 1)."""
    return (active if frozen is None else active & (frozen == 0)).view(-1, 1)


def _start_impl(
    codebook: Tensor, initialised: Tensor, rows: Tensor, found: Tensor, frozen: Tensor | None
) -> None:
    """Code k starts as usable row k mod ``found``; one that ``frozen`` marks stays."""
    active = _may_move((initialised == 0) & (found > 0), frozen)
    k = torch.arange(codebook.shape[0], device=codebook.device)
    seeds = rows[k % found.clamp(min=1)].to(codebook.dtype)
    codebook.copy_(torch.where(active, seeds, codebook))


kmeans_start_ = define(
    "kmeans_start_(Tensor(a!) codebook, Tensor initialised, Tensor rows, Tensor found, "
    "Tensor? frozen) -> ()",
    _start_impl,
    no_result,
)


def _step_impl(
    codebook: Tensor,
    cluster_size: Tensor | None,
    embed_sum: Tensor | None,
    initialised: Tensor,
    counts: Tensor,
    sums: Tensor,
    found: Tensor,
    frozen: Tensor | None,
    metric: str,
) -> None:
    """One Lloyd iteration: each code becomes the mean of its rows; empty and frozen ones stay.

    cluster_size = max(counts, 1) and embed_sum = codebook * cluster_size: with an unscaled sum the
    first EMA update would pull every code to the origin. ``found`` counts
    the usable rows: codes that are a part of a codebook may have got none of them.
    """
    active = (initialised == 0) & (found > 0)
    filled = _may_move(active & (counts > 0), frozen)
    means = (sums.double() / counts.clamp(min=1)[:, None]).to(codebook.dtype)
    if metric == "cosine":
        means, _ = normalize_codes(means)
    codebook.copy_(torch.where(filled, means, codebook))
    if cluster_size is None:
        return
    size = counts.clamp(min=1).to(cluster_size.dtype)
    cluster_size.copy_(torch.where(active, size, cluster_size))
    if embed_sum is not None:
        embed_sum.copy_(torch.where(active, codebook * size[:, None], embed_sum))


kmeans_step_ = define(
    "kmeans_step_(Tensor(a!) codebook, Tensor(b!)? cluster_size, Tensor(c!)? embed_sum, "
    "Tensor initialised, Tensor counts, Tensor sums, Tensor found, Tensor? frozen, "
    "str metric) -> ()",
    _step_impl,
    no_result,
)


def _finish_impl(initialised: Tensor, found: Tensor, owner: Tensor) -> None:
    """Sets ``initialised`` if a usable row was seen. Reads it back: the step of the init may wait
    for the device, no later one does.
    """
    initialised.copy_(torch.maximum(initialised, (found > 0).to(initialised.dtype)))
    module = _owners.find(owner)
    if module is not None and bool(initialised):
        module._initialisation_is(True)


kmeans_finish_ = define(
    "kmeans_finish_(Tensor(a!) initialised, Tensor found, Tensor owner) -> ()",
    _finish_impl,
    no_result,
)
