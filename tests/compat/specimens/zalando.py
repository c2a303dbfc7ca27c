"""The quantizers of zalandoresearch/pytorch-vq-vae, in plain torch."""

from __future__ import annotations

import torch
from compat.specimens import dense
from torch import Tensor, nn


class VectorQuantizer(nn.Module):
    def __init__(self, num_embeddings: int, embedding_dim: int, commitment_cost: float) -> None:
        super().__init__()
        self._embedding_dim, self._num_embeddings = embedding_dim, num_embeddings
        self._embedding = nn.Embedding(num_embeddings, embedding_dim)
        self._embedding.weight.data.uniform_(-1 / num_embeddings, 1 / num_embeddings)
        self._commitment_cost = commitment_cost

    def forward(self, inputs: Tensor) -> tuple:
        x = dense.rows_of(inputs)
        indices = dense.nearest(x.reshape(-1, self._embedding_dim), self._embedding.weight)
        encodings = dense.one_hot(indices, self._num_embeddings, torch.get_default_dtype())
        codes = (encodings @ self._embedding.weight).view(x.shape)
        commitment = self._commitment_cost * dense.mse(codes.detach(), x)
        loss = dense.mse(codes, x.detach()) + commitment
        quantized = dense.images_of(dense.straight_through(x, codes))
        return loss, quantized, dense.perplexity(encodings), encodings


class VectorQuantizerEMA(nn.Module):
    """New Parameters in every step, and the smoothed size in the place of the average."""

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        commitment_cost: float,
        decay: float,
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__()
        self._embedding_dim, self._num_embeddings = embedding_dim, num_embeddings
        self._embedding = nn.Embedding(num_embeddings, embedding_dim)
        self._embedding.weight.data.normal_()
        self._commitment_cost, self._decay, self._epsilon = commitment_cost, decay, epsilon
        self.register_buffer("_ema_cluster_size", torch.zeros(num_embeddings))
        self._ema_w = nn.Parameter(torch.empty(num_embeddings, embedding_dim))
        self._ema_w.data.normal_()

    def forward(self, inputs: Tensor) -> tuple:
        x = dense.rows_of(inputs)
        rows = x.reshape(-1, self._embedding_dim)
        indices = dense.nearest(rows, self._embedding.weight)
        encodings = dense.one_hot(indices, self._num_embeddings, torch.get_default_dtype())
        codes = (encodings @ self._embedding.weight).view(x.shape)
        if self.training:
            self._move(encodings.detach(), rows.detach())
        loss = self._commitment_cost * dense.mse(codes.detach(), x)
        quantized = dense.images_of(dense.straight_through(x, codes))
        return loss, quantized, dense.perplexity(encodings), encodings

    def _move(self, encodings: Tensor, rows: Tensor) -> None:
        decay, epsilon = self._decay, self._epsilon
        size = decay * self._ema_cluster_size + (1 - decay) * encodings.sum(0)
        total = size.sum()
        size = (size + epsilon) / (total + self._num_embeddings * epsilon) * total
        self._ema_cluster_size = size
        sums = decay * self._ema_w.detach() + (1 - decay) * (encodings.T @ rows)
        self._ema_w = nn.Parameter(sums)
        self._embedding.weight = nn.Parameter(sums / size[:, None])
