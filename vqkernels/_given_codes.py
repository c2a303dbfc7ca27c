"""The quantizer step where every row brings its code along. Part of the functional layer."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels import ops
from vqkernels.outputs import CodeUsage, VQOutput


def quantize_to_given(
    x: Tensor,
    codes: Tensor,
    indices: Tensor,
    num_counts: int,
    *,
    commitment_weight: float,
    estimator: str,
    metric: str,
    mask: Tensor | None,
    channel_dim: int,
    backend: str | None,
    moves: Tensor | None = None,
) -> VQOutput:
    """``vector_quantize`` on checked arguments, for codes that no codebook holds in one place.

    It is the step on a codebook whose code n is the code of row n.

    Args:
        codes: (N, D), the code of every row; unit vectors with the cosine metric. Not trained.
        indices: int64, positions of x: the numbers that these codes have; -1 where masked in the
            result.
        num_counts: K, what the numbers are below, for ``usage.counts``; 0 counts nothing.
        moves: as ``functional.quantize_with_sums``.
    """
    n = indices.numel()
    quantized, loss, _, mse, used, _ = ops.VectorQuantize.apply(
        x,
        codes if n > 0 else codes.new_zeros(1, codes.shape[1]),
        None,
        mask,
        torch.arange(n, device=x.device).reshape(indices.shape),
        metric,
        estimator,
        commitment_weight,
        0.0,
        channel_dim,
        False,
        backend,
        None if torch.compiler.is_compiling() else moves,
    )
    counts = torch.zeros(num_counts, dtype=torch.int64, device=x.device)
    if num_counts:
        counts.scatter_add_(0, indices.reshape(-1), used[:n])
    indices = indices if mask is None else indices.masked_fill(~mask, -1)
    return VQOutput(quantized, indices, loss, CodeUsage(counts, mse))
