"""Codes of +-1 bits, of which no codebook is ever made. Part of the functional layer."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vqkernels import ops
from vqkernels._numerics import wide
from vqkernels._soft import mean_entropies
from vqkernels.outputs import CodeEntropy

_BITS = {
    torch.float64: torch.int64,
    torch.float32: torch.int32,
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
}


def bit_indices(x: Tensor, channel_dim: int) -> Tensor:
    """int64, positions of x: bit set where x > 0, the first channel the most significant bit.

    Without meaning where x is NaN. What is compared are the bits of x: as a number, a denormal is
    zero after ``torch.set_flush_denormal(True)``.
    """
    size = x.shape[channel_dim]
    shape = [1] * x.ndim
    shape[channel_dim] = size
    values = 2 ** torch.arange(size - 1, -1, -1, device=x.device)
    has = x.detach().resolve_neg().view(_BITS[x.dtype]) > 0
    return torch.where(has, values.reshape(shape), 0).sum(dim=channel_dim)


def bit_entropy(
    x: Tensor,
    valid: Tensor,
    *,
    temperature: float,
    metric: str,
    group: int,
    channel_dim: int,
) -> CodeEntropy:
    """``code_entropy`` for the codebook of all 2^D codes in {-1, 1}^D, without it.

    The bits of a row are independent: bit i is set with probability ``sigmoid(4 x_i / T)``, or
    ``sigmoid(2 u_i / (sqrt(D) T))`` with the cosine metric, u = x/|x|. ``group`` divides D, and
    ``usage`` is the sum over groups of as many neighbouring bits of the entropies of their mean
    probabilities: at least that of all bits together, which it is with ``group=D`` (subadditivity;
    Zhao et al. 2024, arXiv 2406.07548, section 3). ``per_row`` does not depend on it.

    Memory is O(N*D + 2^group * D / group), and O(2^(group/2)) numbers for every row of a block.
    """
    rows, width = x, x.shape[channel_dim]
    scale = 4.0 / temperature
    if metric == "cosine":
        rows = ops.UnitRows.apply(x, valid, channel_dim)
        scale = 2.0 / (math.sqrt(width) * temperature)
    bits = rows.movedim(channel_dim, -1).reshape(-1, width // group, group)
    entropies, mass = ops.BitAssign.apply(bits, valid.reshape(-1), scale, 0.0)
    return mean_entropies(entropies, mass, valid, wide(x.dtype))
