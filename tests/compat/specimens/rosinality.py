"""The quantizer of rosinality/vq-vae-2-pytorch, in plain torch, and a small VQ-VAE-2 around it."""

from __future__ import annotations

import torch
import torch.distributed as dist
from compat.specimens import dense
from torch import Tensor, nn
from torch.nn import functional as F


class Quantize(nn.Module):
    def __init__(self, dim: int, n_embed: int, decay: float = 0.99, eps: float = 1e-5) -> None:
        super().__init__()
        self.dim, self.n_embed, self.decay, self.eps = dim, n_embed, decay, eps
        embed = torch.randn(dim, n_embed)
        self.register_buffer("embed", embed)
        self.register_buffer("cluster_size", torch.zeros(n_embed))
        self.register_buffer("embed_avg", embed.clone())

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows = input.reshape(-1, self.dim)
        squares = rows.square().sum(1, keepdim=True)
        distances = squares - 2 * rows @ self.embed + self.embed.square().sum(0)
        flat = (-distances).argmax(1)
        indices = flat.view(input.shape[:-1])
        codes = self.embed_code(indices)
        if self.training:
            self._move(F.one_hot(flat, self.n_embed).to(rows.dtype), rows)
        return dense.straight_through(input, codes), dense.mse(codes.detach(), input), indices

    @torch.no_grad()
    def _move(self, encodings: Tensor, rows: Tensor) -> None:
        counts, sums = encodings.sum(0), rows.T @ encodings
        if dist.is_initialized():
            dist.all_reduce(counts)
            dist.all_reduce(sums)
        self.cluster_size.mul_(self.decay).add_(counts, alpha=1 - self.decay)
        self.embed_avg.mul_(self.decay).add_(sums, alpha=1 - self.decay)
        total = self.cluster_size.sum()
        share = (self.cluster_size + self.eps) / (total + self.n_embed * self.eps)
        self.embed.copy_(self.embed_avg / (share * total))

    def embed_code(self, embed_id: Tensor) -> Tensor:
        return F.embedding(embed_id, self.embed.T)


class VQVAE(nn.Module):
    """Two levels: the coarse codes help to encode and to decode the fine ones."""

    def __init__(self, width: int = 8, dim: int = 4, n_embed: int = 16) -> None:
        super().__init__()
        self.enc_b = nn.Conv2d(3, width, 4, stride=2, padding=1)
        self.enc_t = nn.Conv2d(width, width, 4, stride=2, padding=1)
        self.quantize_conv_t = nn.Conv2d(width, dim, 1)
        self.quantize_t = Quantize(dim, n_embed)
        self.upsample_t = nn.ConvTranspose2d(dim, dim, 4, stride=2, padding=1)
        self.quantize_conv_b = nn.Conv2d(dim + width, dim, 1)
        self.quantize_b = Quantize(dim, n_embed)
        self.dec = nn.ConvTranspose2d(2 * dim, 3, 4, stride=2, padding=1)

    def encode(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        fine = self.enc_b(image)
        coarse = self.quantize_conv_t(self.enc_t(fine)).permute(0, 2, 3, 1)
        top, diff_t, id_t = self.quantize_t(coarse)
        top = top.permute(0, 3, 1, 2)
        joined = torch.cat([self.upsample_t(top), fine], 1)
        bottom, diff_b, id_b = self.quantize_b(self.quantize_conv_b(joined).permute(0, 2, 3, 1))
        return top, bottom.permute(0, 3, 1, 2), (diff_t + diff_b)[None], id_t, id_b

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        top, bottom, diff, _, _ = self.encode(image)
        return self.dec(torch.cat([self.upsample_t(top), bottom], 1)), diff

    def decode_code(self, code_t: Tensor, code_b: Tensor) -> Tensor:
        top = self.quantize_t.embed_code(code_t).permute(0, 3, 1, 2)
        bottom = self.quantize_b.embed_code(code_b).permute(0, 3, 1, 2)
        return self.dec(torch.cat([self.upsample_t(top), bottom], 1))
