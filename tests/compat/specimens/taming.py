"""The quantizers of taming-transformers, in plain torch."""

from __future__ import annotations

import numpy as np
import torch
from compat.specimens import dense
from torch import Tensor, nn
from torch.nn import functional as F


def uniform_embedding(num_codes: int, width: int) -> nn.Embedding:
    made = nn.Embedding(num_codes, width)
    made.weight.data.uniform_(-1 / num_codes, 1 / num_codes)
    return made


class VectorQuantizer(nn.Module):
    def __init__(self, n_e: int, e_dim: int, beta: float) -> None:
        super().__init__()
        self.n_e, self.e_dim, self.beta = n_e, e_dim, beta
        self.embedding = uniform_embedding(n_e, e_dim)

    def forward(self, z: Tensor) -> tuple:
        x, weight = dense.rows_of(z), self.embedding.weight
        indices = dense.nearest(x.reshape(-1, self.e_dim), weight)
        encodings = dense.one_hot(indices, self.n_e, x.dtype)
        codes = (encodings @ weight).view(x.shape)
        loss = dense.mse(codes.detach(), x) + self.beta * dense.mse(codes, x.detach())
        quantized = dense.images_of(dense.straight_through(x, codes))
        return quantized, loss, (dense.perplexity(encodings), encodings, indices[:, None])

    def get_codebook_entry(self, indices: Tensor, shape: tuple | None) -> Tensor:
        codes = dense.one_hot(indices, self.n_e, torch.float32) @ self.embedding.weight
        return codes if shape is None else dense.images_of(codes.view(shape))


class VectorQuantizer2(nn.Module):
    def __init__(
        self,
        n_e: int,
        e_dim: int,
        beta: float,
        remap: str | None = None,
        unknown_index: str | int = "random",
        sane_index_shape: bool = False,
        legacy: bool = True,
    ) -> None:
        super().__init__()
        self.n_e, self.e_dim, self.beta, self.legacy = n_e, e_dim, beta, legacy
        self.embedding = uniform_embedding(n_e, e_dim)
        self.remap, self.re_embed, self.sane_index_shape = remap, n_e, sane_index_shape
        if remap is not None:
            self.register_buffer("used", torch.tensor(np.load(remap)))
            extra = unknown_index == "extra"
            self.unknown_index = len(self.used) if extra else unknown_index
            self.re_embed = len(self.used) + extra

    def remap_to_used(self, inds: Tensor) -> Tensor:
        matches = inds[..., None] == self.used
        found = matches.long().argmax(-1)
        if self.unknown_index == "random":
            unknown = torch.randint(self.re_embed, inds.shape)
        else:
            unknown = torch.full_like(inds, self.unknown_index)
        return torch.where(matches.any(-1), found, unknown)

    def unmap_to_all(self, inds: Tensor) -> Tensor:
        if self.re_embed > len(self.used):
            inds = torch.where(inds >= len(self.used), 0, inds)
        return self.used[inds]

    def forward(self, z: Tensor) -> tuple:
        x = dense.rows_of(z)
        indices = dense.nearest(x.reshape(-1, self.e_dim), self.embedding.weight)
        codes = self.embedding(indices).view(x.shape)
        commitment, codebook = dense.mse(codes.detach(), x), dense.mse(codes, x.detach())
        if self.legacy:
            loss = commitment + self.beta * codebook
        else:
            loss = self.beta * commitment + codebook
        if self.remap is not None:
            indices = self.remap_to_used(indices.reshape(len(x), -1)).reshape(-1, 1)
        if self.sane_index_shape:
            indices = indices.reshape(x.shape[:3])
        return dense.images_of(dense.straight_through(x, codes)), loss, (None, None, indices)

    def get_codebook_entry(self, indices: Tensor, shape: tuple | None) -> Tensor:
        if self.remap is not None:
            indices = self.unmap_to_all(indices.reshape(shape[0], -1)).reshape(-1)
        codes = self.embedding(indices)
        return codes if shape is None else dense.images_of(codes.view(shape))


class EmbeddingEMA(nn.Module):
    def __init__(self, num_tokens: int, codebook_dim: int, decay: float, eps: float) -> None:
        super().__init__()
        self.decay, self.eps, self.update = decay, eps, True
        weight = torch.randn(num_tokens, codebook_dim)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.cluster_size = nn.Parameter(torch.zeros(num_tokens), requires_grad=False)
        self.embed_avg = nn.Parameter(weight.clone(), requires_grad=False)

    def forward(self, embed_id: Tensor) -> Tensor:
        return F.embedding(embed_id, self.weight)


class EMAVectorQuantizer(nn.Module):
    """With the two names that its constructor gets wrong put right."""

    def __init__(
        self,
        n_embed: int,
        embedding_dim: int,
        beta: float,
        decay: float = 0.99,
        eps: float = 1e-5,
        remap: str | None = None,
        unknown_index: str = "random",
    ) -> None:
        super().__init__()
        self.codebook_dim, self.num_tokens, self.beta = embedding_dim, n_embed, beta
        self.embedding = EmbeddingEMA(n_embed, embedding_dim, decay, eps)
        self.remap, self.re_embed = remap, n_embed

    def forward(self, z: Tensor) -> tuple:
        book, x = self.embedding, dense.rows_of(z)
        rows = x.reshape(-1, self.codebook_dim)
        indices = dense.nearest(rows, book.weight)
        codes = book(indices).view(x.shape)
        encodings = dense.one_hot(indices, self.num_tokens, z.dtype)
        if self.training and book.update:
            with torch.no_grad():
                book.cluster_size.lerp_(encodings.sum(0), 1 - book.decay)
                book.embed_avg.lerp_(encodings.T @ rows, 1 - book.decay)
                total = book.cluster_size.sum()
                share = (book.cluster_size + book.eps) / (total + self.num_tokens * book.eps)
                book.weight.copy_(book.embed_avg / (share * total)[:, None])
        loss = self.beta * dense.mse(codes.detach(), x)
        quantized = dense.straight_through(x, codes).permute(0, 3, 1, 2)
        return quantized, loss, (dense.perplexity(encodings), encodings, indices)
