"""What the quantizers of audiocraft compute, in plain torch: N x K distances and one-hot sums.

Written from their behaviour at facebookresearch/audiocraft@896ec7c, ``audiocraft/quantization``.
The names of modules and attributes, and the arguments, are theirs. Left out are k-means and the
replacement of dead codes, whose draws no other implementation repeats.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class EuclideanCodebook(nn.Module):
    def __init__(
        self,
        dim: int,
        codebook_size: int,
        kmeans_init: bool = False,
        kmeans_iters: int = 10,
        decay: float = 0.8,
        epsilon: float = 1e-5,
        threshold_ema_dead_code: float = 2.0,
    ) -> None:
        super().__init__()
        self.codebook_size = codebook_size
        self.kmeans_iters = kmeans_iters
        self.decay = decay
        self.epsilon = epsilon
        self.threshold_ema_dead_code = threshold_ema_dead_code
        codes = torch.zeros(codebook_size, dim)
        if not kmeans_init:
            nn.init.kaiming_uniform_(codes)
        self.register_buffer("inited", torch.tensor([float(not kmeans_init)]))
        self.register_buffer("cluster_size", torch.zeros(codebook_size))
        self.register_buffer("embed", codes)
        self.register_buffer("embed_avg", codes.clone())

    def encode(self, x: Tensor) -> Tensor:
        return torch.cdist(x.flatten(0, -2), self.embed).argmin(1).view(x.shape[:-1])

    def decode(self, indices: Tensor) -> Tensor:
        return F.embedding(indices, self.embed)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        indices = self.encode(x)
        quantized = self.decode(indices)
        if self.training:
            chosen = F.one_hot(indices.flatten(), self.codebook_size).to(x.dtype)
            new = 1.0 - self.decay
            self.cluster_size.mul_(self.decay).add_(chosen.sum(0), alpha=new)
            self.embed_avg.mul_(self.decay).add_(chosen.T @ x.flatten(0, -2).detach(), alpha=new)
            total = self.cluster_size.sum()
            share = (self.cluster_size + self.epsilon) / (total + len(chosen[0]) * self.epsilon)
            self.embed.copy_(self.embed_avg / (share * total)[:, None])
        return quantized, indices


class VectorQuantization(nn.Module):
    def __init__(
        self,
        dim: int,
        codebook_size: int,
        codebook_dim: int | None = None,
        channels_last: bool = False,
        commitment_weight: float = 1.0,
        orthogonal_reg_weight: float = 0.0,
        orthogonal_reg_active_codes_only: bool = False,
        orthogonal_reg_max_codes: int | None = None,
        **codebook: Any,
    ) -> None:
        super().__init__()
        width = codebook_dim or dim
        self.project_in = nn.Linear(dim, width) if width != dim else nn.Identity()
        self.project_out = nn.Linear(width, dim) if width != dim else nn.Identity()
        self.channels_last = channels_last
        self.commitment_weight = commitment_weight
        self.orthogonal_reg_weight = orthogonal_reg_weight
        self.orthogonal_reg_active_codes_only = orthogonal_reg_active_codes_only
        self.orthogonal_reg_max_codes = orthogonal_reg_max_codes
        self._codebook = EuclideanCodebook(width, codebook_size, **codebook)
        self.codebook_size = codebook_size

    def encode(self, x: Tensor) -> Tensor:
        return self._codebook.encode(self.project_in(self._turned(x)))

    def decode(self, indices: Tensor) -> Tensor:
        return self._turned(self.project_out(self._codebook.decode(indices)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.project_in(self._turned(x))
        quantized, indices = self._codebook(x)
        loss = torch.zeros(1, requires_grad=self.training)
        if self.training:
            loss = loss + F.mse_loss(quantized, x) * self.commitment_weight
            quantized = x + (quantized - x).detach()
            if self.orthogonal_reg_weight > 0:
                loss = loss + self._orthogonality(indices) * self.orthogonal_reg_weight
        return self._turned(self.project_out(quantized)), indices, loss

    def _orthogonality(self, indices: Tensor) -> Tensor:
        codes = self._codebook.embed
        if self.orthogonal_reg_active_codes_only:
            codes = codes[indices.unique()]
        unit = F.normalize(codes, dim=-1)
        return (unit @ unit.T - torch.eye(len(unit))).square().sum() / len(unit) ** 2

    def _turned(self, x: Tensor) -> Tensor:
        return x if self.channels_last else x.transpose(1, 2)


class ResidualVectorQuantization(nn.Module):
    def __init__(self, *, num_quantizers: int, **level: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(VectorQuantization(**level) for _ in range(num_quantizers))

    def forward(self, x: Tensor, n_q: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        left, total = x, torch.zeros(())
        codes, losses = [], []
        for level in self.layers[: n_q or len(self.layers)]:
            quantized, indices, loss = level(left)
            left = left - quantized.detach()
            total = total + quantized.detach()
            codes.append(indices)
            losses.append(loss)
        if self.training:
            total = x + (total - x).detach()
        return total, torch.stack(codes), torch.stack(losses)

    def encode(self, x: Tensor, n_q: int | None = None) -> Tensor:
        codes = []
        for level in self.layers[: n_q or len(self.layers)]:
            codes.append(level.encode(x))
            x = x - level.decode(codes[-1])
        return torch.stack(codes)

    def decode(self, codes: Tensor) -> Tensor:
        return sum(level.decode(i) for level, i in zip(self.layers, codes, strict=False))


class ResidualVectorQuantizer(nn.Module):
    def __init__(
        self,
        dimension: int = 256,
        n_q: int = 8,
        q_dropout: bool = False,
        bins: int = 1024,
        **options: Any,
    ) -> None:
        super().__init__()
        given = {
            "decay": 0.99,
            "kmeans_init": True,
            "kmeans_iters": 10,
            "threshold_ema_dead_code": 2.0,
            "orthogonal_reg_weight": 0.0,
            "orthogonal_reg_active_codes_only": False,
            "orthogonal_reg_max_codes": None,
            **options,
        }
        self.max_n_q = self.n_q = n_q
        self.q_dropout = q_dropout
        self.dimension = dimension
        self.bins = bins
        for name, value in given.items():
            setattr(self, name, value)
        sizes = {"dim": dimension, "codebook_size": bins, "num_quantizers": n_q}
        self.vq = ResidualVectorQuantization(**sizes, **given)

    def forward(self, x: Tensor, frame_rate: int) -> SimpleNamespace:
        n_q = self.n_q
        if self.training and self.q_dropout:
            n_q = int(torch.randint(1, n_q + 1, (1,)).item())
        quantized, codes, losses = self.vq(x, n_q=n_q)
        bandwidth = torch.tensor(n_q * math.log2(self.bins) * frame_rate / 1000).to(x)
        return SimpleNamespace(
            x=quantized,
            codes=codes.transpose(0, 1),
            bandwidth=bandwidth,
            penalty=losses.mean(),
            metrics={},
        )

    def encode(self, x: Tensor) -> Tensor:
        return self.vq.encode(x, self.n_q).transpose(0, 1)

    def decode(self, codes: Tensor) -> Tensor:
        return self.vq.decode(codes.transpose(0, 1))
