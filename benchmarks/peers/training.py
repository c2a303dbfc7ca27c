"""A training step, forward and backward with EMA: the class that models copy, and the library.

Same codebook, decay, commitment weight and estimator as ours, x as (1, N, D).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.peers.provider import Call, Provider
from benchmarks.peers.step import step_of


class HandWritten(nn.Module):
    """The class that this library replaces: distances, argmin, one-hot, EMA, straight-through."""

    codebook: Tensor
    cluster_size: Tensor
    embed_sum: Tensor

    def __init__(self, codebook: Tensor) -> None:
        super().__init__()
        self.register_buffer("codebook", codebook.clone())
        self.register_buffer("cluster_size", codebook.new_ones(len(codebook)))
        self.register_buffer("embed_sum", codebook.clone())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        k, d = self.codebook.shape
        flat = x.reshape(-1, d)
        distances = (
            flat.square().sum(1, keepdim=True)
            + self.codebook.square().sum(1)
            - 2 * flat @ self.codebook.T
        )
        indices = distances.argmin(1)
        one_hot = F.one_hot(indices, k).to(flat.dtype)
        quantized = (one_hot @ self.codebook).view_as(x)
        loss = 0.25 * F.mse_loss(x, quantized.detach())
        with torch.no_grad():
            self.cluster_size.mul_(0.99).add_(one_hot.sum(0), alpha=0.01)
            self.embed_sum.mul_(0.99).add_(one_hot.T @ flat, alpha=0.01)
            total = self.cluster_size.sum()
            size = (self.cluster_size + 1e-5) / (total + k * 1e-5) * total
            self.codebook.copy_(self.embed_sum / size[:, None])
        return x + (quantized - x).detach(), indices.view(x.shape[:-1]), loss


class HandWrittenLevels(nn.Module):
    """The loop around that class for a residual quantizer."""

    def __init__(self, codebooks: Tensor) -> None:
        super().__init__()
        self.levels = nn.ModuleList(map(HandWritten, codebooks))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        left, quantized, loss, indices = x, torch.zeros_like(x), x.new_zeros(()), []
        for level in self.levels:
            code, chosen, term = level(left)
            left, quantized, loss = left - code.detach(), quantized + code, loss + term
            indices.append(chosen)
        return quantized, torch.stack(indices, -1), loss


def hand_written(x: Tensor, codebook: Tensor) -> Call:
    make = HandWrittenLevels if codebook.ndim == 3 else HandWritten
    return step_of(make(codebook).to(x.device), x)


def vector_quantize_pytorch(x: Tensor, codebook: Tensor) -> Call:
    return step_of(library_module(codebook).to(x.device), x)


def library_module(codebook: Tensor) -> Any:
    """vector-quantize-pytorch's VectorQuantize, or its ResidualVQ of codebooks (L, K, D)."""
    from vector_quantize_pytorch import ResidualVQ, VectorQuantize

    k, d = codebook.shape[-2:]
    options = {"decay": 0.99, "commitment_weight": 0.25, "rotation_trick": False}
    if codebook.ndim == 2:
        module = VectorQuantize(dim=d, codebook_size=k, **options)
        _set_codebook(module, codebook)
        return module
    module = ResidualVQ(dim=d, codebook_size=k, num_quantizers=len(codebook), **options)
    for level, codes in zip(module.layers, codebook, strict=True):
        _set_codebook(level, codes)
    return module


def _set_codebook(module: Any, codebook: Tensor) -> None:
    """Of a VectorQuantize, with the sums that its average starts from."""
    module._codebook.embed.data.copy_(codebook[None])
    module._codebook.embed_avg.data.copy_(codebook[None])


TRAINING = (
    Provider("hand-written torch", hand_written, bytes_per_pair=16),
    Provider(
        "vector-quantize-pytorch",
        vector_quantize_pytorch,
        "vector-quantize-pytorch",
        "vector_quantize_pytorch",
        bytes_per_pair=24,
    ),
)
