"""GumbelQuantize: codes drawn by logits that a convolution makes (taming-transformers)."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vqkernels import _checks, distributed, functional, ops
from vqkernels._index_gradient import divergence_from_uniform, drawn_codes, gumbel_lookup
from vqkernels._numerics import wide
from vqkernels.compat._peer import Peer
from vqkernels.compat._remap import Remapped


class GumbelQuantize(Remapped, Peer):
    """taming-transformers' ``GumbelQuantize``: same calls, returns and state_dict.

    Codes are drawn from the softmax of ``proj(z)``, in evaluation too, and the gradient is that of
    the Gumbel-softmax (Jang et al. 2016, arXiv 1611.01144). ``proj`` is not called unless its
    logits are asked for: they, the noise and the probabilities are computed for a block of
    positions at a time, and nothing is allocated with both positions and codes as factors. The
    value of a drawn code is its row of ``embed``, bit for bit; the divergence is exact where
    theirs adds 1e-10 in the logarithm.

    The noise is a hash of a seed, drawn from torch's generator when the module is made, and of the
    number of the call. The codes are the same in distribution as theirs, not one by one.
    """

    replaces = ("taming.modules.vqvae.quantize.GumbelQuantize",)
    codebook_key: ClassVar[str] = "embed.weight"
    settings = ("temperature", "kl_weight", "straight_through", "use_vqinterface")

    draws: Tensor

    def __init__(
        self,
        num_hiddens: int,
        embedding_dim: int,
        n_embed: int,
        straight_through: bool = True,
        kl_weight: float = 5e-4,
        temp_init: float = 1.0,
        use_vqinterface: bool = True,
        remap: str | os.PathLike[str] | None = None,
        unknown_index: str | int = "random",
    ) -> None:
        super().__init__()
        self.embedding_dim = embedding_dim
        self.n_embed = n_embed
        self.straight_through = straight_through
        self.temperature = temp_init
        self.kl_weight = kl_weight
        self.proj = nn.Conv2d(num_hiddens, n_embed, 1)
        self.embed = nn.Embedding(n_embed, embedding_dim)
        self.use_vqinterface = use_vqinterface
        self._set_remap(remap, unknown_index, n_embed)
        counter = torch.zeros((), dtype=torch.int64)
        self.register_buffer("draws", counter, persistent=False)
        self._seed = int(torch.randint(1 << 31, ()))

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        return {
            "num_hiddens": theirs.proj.in_channels,
            "embedding_dim": theirs.embedding_dim,
            "n_embed": theirs.n_embed,
            "straight_through": theirs.straight_through,
            "kl_weight": theirs.kl_weight,
            "temp_init": theirs.temperature,
            "use_vqinterface": theirs.use_vqinterface,
            **cls._remap_of(theirs),
        }

    def forward(self, z: Tensor, temp: float | None = None, return_logits: bool = False) -> Any:
        """(z_q (B, D, H, W), divergence, (None, None, indices (B, H, W)))."""
        _checks.vectors(z, self.proj.in_channels, 1, name="z")
        temp = self.temperature if temp is None else temp
        weight, bias, values = self.proj.weight.flatten(1), self.proj.bias, self.embed.weight
        if self.remap is not None:
            weight, values = weight[self.used], values[self.used]
            bias = None if bias is None else bias[self.used]
        ops.tick_(self.draws)
        seed = distributed.seed_of_rank(self._seed, distributed.group_of(None))
        rows = z.to(wide(z.dtype))
        indices = drawn_codes(rows, weight, bias, None, self.draws, seed, 1)
        chosen = ops.lookup(indices, values.detach(), 1)
        temperature = torch.full((), temp, dtype=rows.dtype, device=z.device)
        z_q = gumbel_lookup(
            *(rows, weight, bias, values, chosen, indices, temperature, self.draws, seed),
            *(self.straight_through or not self.training, 1),
        ).to(z.dtype)
        loss = divergence_from_uniform(rows, weight, bias, None, 1, self.n_embed)
        divergence = (self.kl_weight * loss).to(z.dtype)
        if self.remap is not None:
            indices = self.remap_to_used(self.used[indices])
        if not self.use_vqinterface:
            return z_q, divergence, indices
        if return_logits:
            logits = self.proj(z)
            logits = logits if self.remap is None else logits[:, self.used]
            return z_q, divergence, (None, None, indices), logits
        return z_q, divergence, (None, None, indices)

    def get_codebook_entry(self, indices: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
        """(B, D, H, W) for flat indices and ``shape`` (B, H, W, any)."""
        indices = indices.reshape(shape[:3])
        if self.remap is not None:
            indices = self.unmap_to_all(indices)
        return functional.lookup(indices, self.embed.weight)
