"""What descript-audio-codec and the port of it in transformers share: all but the reductions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqkernels import functional
from vqkernels.compat._peer import Peer


class FactorizedQuantizer(Peer):
    """One level: project to few channels, take the code at the smallest angle, project back.

    With z_e = in_proj(z) and q the raw codebook row whose direction is nearest to z_e (Kumar et
    al. 2023, arXiv 2306.06546, section 3.2)::

        z_q = out_proj(z_e + sg(q - z_e))         commitment = (z_e - sg(q))^2
                                                  codebook   = (q - sg(z_e))^2
    """

    codebook_key = "codebook.weight"
    codebook_dim: int
    in_proj: nn.Module
    out_proj: nn.Module
    codebook: nn.Embedding

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Quantizes z, (B, input_dim, T).

        Returns:
            (z_q (B, input_dim, T), commitment loss, codebook loss, indices (B, T), z_e (B,
            codebook_dim, T)); the losses are not weighted.
        """
        z_e = self.in_proj(z)
        z_q, indices = self.decode_latents(z_e)
        commitment = self._mean(F.mse_loss(z_e, z_q.detach(), reduction="none"))
        codebook = self._mean(F.mse_loss(z_q, z_e.detach(), reduction="none"))
        # The difference of z_e and itself is 0, and NaN where z_e is not finite: the value is the
        # code to the bit.
        passed = z_q.detach() + (z_e - z_e.detach())
        return self.out_proj(passed), commitment, codebook, indices, z_e

    def decode_latents(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """The raw codes nearest in angle to latents, (B, codebook_dim, T), and their indices."""
        codes = self.codebook.weight
        indices = functional.nearest_code(latents, codes, metric="cosine").indices
        return functional.lookup(indices, codes), indices

    def _mean(self, squares: Tensor) -> Tensor:
        """The mean of (B, codebook_dim, T) squares that makes a loss."""
        raise NotImplementedError


class FactorizedResidualQuantizer(Peer):
    """Levels of ``FactorizedQuantizer``, each on what the ones before have left of z.

    In training ``int(B * quantizer_dropout)`` elements of the batch, the first ones, keep 1 to
    ``n_codebooks`` levels, drawn from torch's generator; all levels run for every element, so the
    codes of the dropped ones are returned too.
    """

    codebook_key = "codebook.weight"
    settings = ("quantizer_dropout",)
    n_codebooks: int
    quantizer_dropout: float
    quantizers: nn.ModuleList

    def forward(
        self, z: Tensor, n_quantizers: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Quantizes z, (B, input_dim, T).

        Args:
            z: what the encoder returns.
            n_quantizers: levels to run, from the first; all by default. Training ignores it.

        Returns:
            (z_q like z, codes (B, L, T), latents (B, L * codebook_dim, T), commitment loss,
            codebook loss); the losses are sums over the levels, not weighted.
        """
        kept: int | Tensor = self.n_codebooks if n_quantizers is None else n_quantizers
        if self.training:
            kept = self._draw_levels(len(z)).to(z.device)
        z_q: Any = 0
        commitment: Any = 0
        codebook: Any = 0
        residual, codes, latents = z, [], []
        for level, quantizer in enumerate(self.quantizers):
            if not self.training and level >= kept:
                break
            quantized, commitment_here, codebook_here, indices, z_e = quantizer(residual)
            takes = torch.full((len(z),), level, device=z.device) < kept
            z_q = z_q + quantized * takes[:, None, None]
            residual = residual - quantized
            commitment = commitment + self._of_batch(commitment_here, takes)
            codebook = codebook + self._of_batch(codebook_here, takes)
            codes.append(indices)
            latents.append(z_e)
        return z_q, torch.stack(codes, dim=1), torch.cat(latents, dim=1), commitment, codebook

    def from_codes(self, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What codes (B, L', T), of the first L' levels, stand for.

        Returns:
            (z_q (B, input_dim, T), the codes' rows (B, L' * codebook_dim, T), codes).
        """
        rows = [
            functional.lookup(indices, level.codebook.weight)
            for indices, level in zip(codes.unbind(1), self._levels(), strict=False)
        ]
        return self._projected(rows), torch.cat(rows, dim=1), codes

    def _nearest_rows(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(z_q, rows, codes) of latents (B, sum of widths, T), of as many levels as they hold."""
        rows, codes, start = [], [], 0
        for level in self._levels():
            end = start + level.codebook_dim
            if end > latents.shape[1]:
                break
            found, indices = level.decode_latents(latents[:, start:end])
            rows.append(found)
            codes.append(indices)
            start = end
        return self._projected(rows), torch.cat(rows, dim=1), torch.stack(codes, dim=1)

    def _projected(self, rows: Iterable[Tensor]) -> Tensor:
        total: Any = 0.0
        for level, found in zip(self._levels(), rows, strict=False):
            total = total + level.out_proj(found)
        return total

    def _levels(self) -> list[FactorizedQuantizer]:
        levels: Any = self.quantizers
        return list(levels)

    def _draw_levels(self, batch: int) -> Tensor:
        """How many levels each element keeps. One draw in every training forward, as theirs."""
        kept = torch.full((batch,), self.n_codebooks + 1)
        drawn = torch.randint(1, self.n_codebooks + 1, (batch,))
        dropped = int(batch * self.quantizer_dropout)
        return torch.cat([drawn[:dropped], kept[dropped:]])

    def _of_batch(self, loss: Tensor, takes: Tensor) -> Tensor:
        """The loss of one level, of the elements that take part in it: (B,) flags."""
        raise NotImplementedError
