"""What the public functions return: NamedTuples, so that compile, DDP and pickle see tensors."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class NearestCode(NamedTuple):
    """Result of the search.

    Attributes:
        indices: int64, the positions of x (its shape without the channel dimension); with one
            more axis of size k, the last, where the k nearest were asked for.
        distances: float32, same shape: the squared distance (l2) or the dot product with the
            normalised code (cosine), evaluated in float64 and rounded once.
    """

    indices: Tensor
    distances: Tensor


class CodeSums(NamedTuple):
    """Statistics per code.

    Attributes:
        counts: int64 (K,), rows that chose each code.
        sums: float32 (float64 for float64 input) (K, D), their sum.
    """

    counts: Tensor
    sums: Tensor


class CodeEntropy(NamedTuple):
    """Entropies of the soft assignment, in nats.

    Attributes:
        per_row: float32 (float64 for float64 input) 0-d, mean entropy of a row's probabilities.
            Differentiable.
        usage: the same, entropy of the mean probabilities: how diverse the codes in use are.
            Differentiable.
    """

    per_row: Tensor
    usage: Tensor


class CodeUsage(NamedTuple):
    """How the codebook was used by one call. The properties compute when they are read.

    A residual quantizer of L levels has one more dimension, of size L, at the front of every
    shape: each level is described on its own.

    Quantizers of more than 2^20 codes that no codebook holds count nothing: ``counts`` is (0,).

    Attributes:
        counts: int64 (K,), valid rows that chose each code.
        mse: float32 (float64 for float64 input) 0-d, mean squared quantization error over the
            valid elements.
    """

    counts: Tensor
    mse: Tensor

    @property
    def perplexity(self) -> Tensor:
        """exp of the entropy (nats) of the code frequencies: 1 to K; 0 when no row counted.

        NaN where nothing is counted.
        """
        if not self.counts.shape[-1]:
            return torch.full_like(self.mse, torch.nan, dtype=torch.float32)
        total = self.counts.sum(dim=-1)
        p = self.counts.double() / total.clamp(min=1)[..., None]
        entropy = -torch.special.xlogy(p, p).sum(dim=-1)
        return torch.where(total > 0, entropy.exp(), 0.0).float()

    @property
    def active(self) -> Tensor:
        """int64 0-d, codes that were chosen at least once; -1 where nothing is counted."""
        if not self.counts.shape[-1]:
            return torch.full_like(self.mse, -1, dtype=torch.int64)
        return (self.counts > 0).sum(dim=-1)

    @property
    def active_ceiling(self) -> Tensor:
        """float32 0-d, codes that uniform use of N rows would hit: K*(1 - (1-1/K)^N).

        NaN where nothing is counted.
        """
        k = self.counts.shape[-1]
        if not k:
            return self.perplexity
        n = self.counts.sum(dim=-1).double()
        hit = torch.where(n > 0, 1.0, 0.0) if k == 1 else 1.0 - (1.0 - 1.0 / k) ** n
        return (k * hit).float()


class CodebookHealth(NamedTuple):
    """How well a learning codebook of K codes is used, over all ranks that learn it.

    Attributes:
        window: rows of the statement about ``active``.
        active: codes that were chosen within the last ``window`` rows, counted in whole training
            forwards. A codebook that has not taken as many rows yet counts all of them.
        ceiling: codes that uniform use of ``window`` rows would reach: K*(1 - (1-1/K)^window).
        perplexity: exp of the entropy (nats) of the moving average of the rows per code: 1 to K.
        dead: codes that ``revive`` would replace, if it looked now; 0 with None.
        revived: codes replaced since the module was made.
    """

    window: int
    active: int
    ceiling: float
    perplexity: float
    dead: int
    revived: int


class VQOutput(NamedTuple):
    """Result of a quantizer.

    Attributes:
        quantized: shape and dtype of x; each vector is the chosen code, or the sum of one code
            per level. Differentiable in x through the estimator.
        indices: int64, positions of x; -1 where masked. A residual quantizer's have the levels in
            one more dimension, the last.
        loss: float32 (float64 for float64 input) 0-d, commitment plus codebook loss.
            Differentiable.
        usage: counts and mean squared error of this call, per level of a residual quantizer.
    """

    quantized: Tensor
    indices: Tensor
    loss: Tensor
    usage: CodeUsage


for _output in (NearestCode, CodeSums, CodeEntropy, CodeUsage, VQOutput):
    torch.utils._pytree._register_namedtuple(
        _output, serialized_type_name=f"vqkernels.{_output.__name__}"
    )
