"""GumbelQuantize of taming-transformers, in plain torch, with noise that can be given."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


class GumbelQuantize(nn.Module):
    """``noise`` (B, K, H, W), if it is not None, takes the place of what torch would draw."""

    noise: Tensor | None = None

    def __init__(
        self,
        num_hiddens: int,
        embedding_dim: int,
        n_embed: int,
        straight_through: bool = True,
        kl_weight: float = 5e-4,
        temp_init: float = 1.0,
        use_vqinterface: bool = True,
        remap: str | None = None,
        unknown_index: str | int = "random",
    ) -> None:
        super().__init__()
        self.embedding_dim, self.n_embed = embedding_dim, n_embed
        self.straight_through, self.kl_weight = straight_through, kl_weight
        self.temperature, self.use_vqinterface = temp_init, use_vqinterface
        self.proj = nn.Conv2d(num_hiddens, n_embed, 1)
        self.embed = nn.Embedding(n_embed, embedding_dim)
        self.remap, self.re_embed = remap, n_embed
        if remap is not None:
            self.register_buffer("used", torch.from_numpy(np.load(remap)))
            extra = unknown_index == "extra"
            self.unknown_index = len(self.used) if extra else unknown_index
            self.re_embed = len(self.used) + extra

    def forward(self, z: Tensor, temp: float | None = None, return_logits: bool = False) -> tuple:
        logits = self.proj(z)
        table = self.embed.weight
        if self.remap is not None:
            logits, table = logits[:, self.used], table[self.used]
        noise = self.noise
        if noise is None:
            noise = -torch.empty_like(logits).exponential_().log()
        y = ((logits + noise) / (self.temperature if temp is None else temp)).softmax(1)
        indices = y.argmax(1)
        if self.straight_through or not self.training:
            hard = torch.zeros_like(y).scatter_(1, indices[:, None], 1.0)
            y = hard - y.detach() + y
        quantized = (y.movedim(1, -1) @ table).movedim(-1, 1)
        share = logits.softmax(1)
        terms = share * (share * self.n_embed + 1e-10).log()
        divergence = self.kl_weight * terms.sum(1).mean()
        if not self.use_vqinterface:
            return quantized, divergence, indices
        info = (None, None, indices)
        return (quantized, divergence, info, *([logits] if return_logits else []))

    def get_codebook_entry(self, indices: Tensor, shape: tuple[int, ...]) -> Tensor:
        codes = indices if self.remap is None else self.used[indices]
        return self.embed(codes.reshape(shape[:3])).permute(0, 3, 1, 2)
