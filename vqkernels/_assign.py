"""Assignments other than to the nearest code, for modules. Part of the functional layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vqkernels import ops
from vqkernels._nearest_codes import search_many
from vqkernels._soft import compared
from vqkernels.functional import quantize_with_sums
from vqkernels.outputs import CodeUsage, VQOutput


@torch.no_grad()
def drawn_codes(
    x: Tensor,
    codebook: Tensor,
    mask: Tensor | None,
    draws: Tensor,
    *,
    seed: int,
    temperature: float,
    metric: str,
    channel_dim: int,
    backend: str | None,
) -> Tensor:
    """Indices as ``Sample`` defines them; (seed, ``draws``, row number) make the draw of a row.

    0 for rows that are masked or not finite.
    """
    rows, codes, scale, valid = compared(
        x.detach(), codebook.detach(), temperature, metric, mask, channel_dim
    )
    options = (scale, channel_dim)
    logsumexp, _, _ = ops.soft_assign(rows, codes, valid, *options, False, backend)
    drawn = ops.sample_codes(rows, codes, logsumexp, draws, seed, *options, backend)
    return torch.where(valid, drawn, 0)


def quantize_to_many(
    x: Tensor,
    codebook: Tensor,
    k: int,
    *,
    metric: str,
    mask: Tensor | None,
    channel_dim: int,
    backend: str | None,
    **weights: Any,
) -> tuple[VQOutput, Tensor]:
    """``quantize_with_sums`` to the k nearest codes: one more axis of size k, the last.

    The loss is the mean over all k; counts and sums are those of the nearest alone.
    """
    indices = search_many(x, codebook, k, metric, channel_dim, backend).indices
    out, _ = quantize_with_sums(
        x[..., None].expand(*x.shape, k),
        codebook,
        None,
        metric=metric,
        mask=None if mask is None else mask[..., None].expand(*mask.shape, k),
        channel_dim=channel_dim,
        backend=backend,
        statistics=False,
        chosen=indices,
        **weights,
    )
    counts, sums = ops.code_sums(
        x.detach(), indices[..., 0], len(codebook), mask, metric, channel_dim, backend
    )
    return out._replace(usage=CodeUsage(counts, out.usage.mse)), sums
