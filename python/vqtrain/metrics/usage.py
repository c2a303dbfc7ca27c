"""How much of a codebook is used, over a whole split and beside what equal use would give."""

from typing import NamedTuple

import torch
from torch import Tensor


class CodeUsage(NamedTuple):
    """How much of the codebook is used.

    Attributes:
        counts: `(K,)` int64.
        used: share of codes that occur.
        ceiling: expected share if all codes were equally likely, 1 - (1 - 1/K)^N for N codes.
        perplexity: 2 to the entropy of the counts, in 1 .. K.
    """

    counts: Tensor
    used: float
    ceiling: float
    perplexity: float


def code_usage(codes: Tensor, num_embeddings: int) -> CodeUsage:
    """Usage over a whole split, not over a batch: perplexity of a batch depends on its size.

    Args:
        codes: integer tensor of any shape, values in `0 .. num_embeddings - 1`.
        num_embeddings: K.
    """
    counts = torch.bincount(codes.flatten().long(), minlength=num_embeddings)
    p = counts.double() / counts.sum()
    entropy = -torch.special.xlogy(p, p).sum()
    return CodeUsage(
        counts=counts,
        used=(counts > 0).double().mean().item(),
        ceiling=1 - (1 - 1 / num_embeddings) ** codes.numel(),
        perplexity=entropy.exp().item(),
    )
