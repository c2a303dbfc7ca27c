"""What others do for the same job, each in its best form that we know of.

Every search returns int64 indices for x (N, D) and a codebook (K, D), float32.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Search = Callable[[], Tensor]


def torch_naive(x: Tensor, codebook: Tensor) -> Search:
    """The form found in most models: the whole (N, K) matrix, then argmin."""

    def search() -> Tensor:
        distances = x.square().sum(1, keepdim=True) + codebook.square().sum(1) - 2 * x @ codebook.T
        return distances.argmin(1)

    return search


def torch_chunked(x: Tensor, codebook: Tensor, rows: int) -> Search:
    """Blocks of rows, |x|^2 left out, |c|^2 added by the product itself."""
    half = codebook.square().sum(1) / 2

    def search() -> Tensor:
        blocks = [
            torch.addmm(half, block, codebook.T, alpha=-1).argmin(1) for block in x.split(rows)
        ]
        return torch.cat(blocks)

    return search


def faiss_flat(x: Tensor, codebook: Tensor) -> Search:
    """faiss IndexFlatL2, k = 1, with torch's number of threads."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatL2(codebook.shape[1])
    index.add(codebook.numpy())
    queries = x.numpy()
    return lambda: torch.from_numpy(index.search(queries, 1)[1][:, 0])


class HandWritten(nn.Module):
    """The class that this library replaces: distances, argmin, one-hot, EMA, straight-through."""

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        super().__init__()
        self.register_buffer("codebook", torch.randn(num_embeddings, embedding_dim))
        self.register_buffer("cluster_size", torch.ones(num_embeddings))
        self.register_buffer("embed_sum", self.codebook.clone())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        k, d = self.codebook.shape
        flat = x.movedim(1, -1).reshape(-1, d)
        distances = (
            flat.square().sum(1, keepdim=True)
            + self.codebook.square().sum(1)
            - 2 * flat @ self.codebook.T
        )
        one_hot = F.one_hot(distances.argmin(1), k).to(flat.dtype)
        quantized = (one_hot @ self.codebook).reshape(*x.movedim(1, -1).shape).movedim(-1, 1)
        loss = 0.25 * F.mse_loss(x, quantized.detach())
        with torch.no_grad():
            self.cluster_size.mul_(0.99).add_(one_hot.sum(0), alpha=0.01)
            self.embed_sum.mul_(0.99).add_(one_hot.T @ flat, alpha=0.01)
            total = self.cluster_size.sum()
            size = (self.cluster_size + 1e-5) / (total + k * 1e-5) * total
            self.codebook.copy_(self.embed_sum / size[:, None])
        return x + (quantized - x).detach(), loss
