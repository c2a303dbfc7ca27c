"""ResidualSimVQ: levels of SimVQ, each for what the ones before it have left."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vqkernels import functional
from vqkernels.compat._peer import Peer
from vqkernels.compat.vector_quantize_pytorch._level_dropout import SeedStream, kept_levels
from vqkernels.compat.vector_quantize_pytorch.sim_vq import SimVQ


class ResidualSimVQ(Peer):
    """``vector_quantize_pytorch.ResidualSimVQ``: same calls, returns and state_dict.

    Level l quantizes ``r_l = r_(l-1) - sg(q_(l-1))`` (Zeghidour et al. 2021, arXiv 2107.03312,
    algorithm 1), and ``quantized`` is the sum of what the levels return. As in theirs every level
    passes its own gradient to x. Quantizer dropout drops the last levels of a training forward for
    the whole batch: index -1, loss 0.
    """

    replaces = ("vector_quantize_pytorch.residual_sim_vq.ResidualSimVQ",)
    codebook_key: ClassVar[str] = "frozen_codebook"
    settings: ClassVar[tuple[str, ...]] = (
        "quantize_dropout",
        "quantize_dropout_cutoff_index",
        "quantize_dropout_multiple_of",
    )

    def __init__(
        self,
        *,
        dim: int,
        num_quantizers: int,
        codebook_size: int,
        heads: int = 1,
        quantize_dropout: bool = False,
        quantize_dropout_cutoff_index: int = 0,
        quantize_dropout_multiple_of: int = 1,
        channel_first: bool = False,
        rotation_trick: bool = True,
        **sim_vq_kwargs: Any,
    ) -> None:
        super().__init__()
        if heads != 1:
            raise ValueError(f"heads must be 1, got {heads}")
        if quantize_dropout_cutoff_index < 0:
            raise ValueError(
                "quantize_dropout_cutoff_index must be at least 0, "
                f"got {quantize_dropout_cutoff_index}"
            )
        self.channel_first = channel_first
        self.num_quantizers = num_quantizers
        self.layers = nn.ModuleList(
            SimVQ(
                dim,
                codebook_size,
                rotation_trick=rotation_trick,
                channel_first=channel_first,
                **sim_vq_kwargs,
            )
            for _ in range(num_quantizers)
        )
        self.quantize_dropout = quantize_dropout and num_quantizers > 1
        self.quantize_dropout_cutoff_index = quantize_dropout_cutoff_index
        self.quantize_dropout_multiple_of = quantize_dropout_multiple_of
        self._seeds = SeedStream()

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        return {
            **SimVQ.arguments_of(theirs.layers[0]),
            "num_quantizers": theirs.num_quantizers,
            "quantize_dropout": theirs.quantize_dropout,
            "quantize_dropout_cutoff_index": theirs.quantize_dropout_cutoff_index,
            "quantize_dropout_multiple_of": theirs.quantize_dropout_multiple_of,
        }

    @property
    def _levels(self) -> list[SimVQ]:
        return list(self.layers)  # type: ignore[arg-type]

    @property
    def codebook_size(self) -> int:
        return self._levels[0].codebook_size

    @property
    def codebooks(self) -> Tensor:
        """(Q, K, D): the transformed codes."""
        return torch.stack([layer.codebook for layer in self._levels])

    def get_codes_from_indices(self, indices: Tensor) -> Tensor:
        """(Q, *positions, D) of (*positions, q) indices; zeros where one is -1 or left out.

        With ``channel_first`` the channels follow the batch.
        """
        given = indices.shape[-1]
        if given < self.num_quantizers and not self.quantize_dropout:
            raise ValueError(
                f"indices must have {self.num_quantizers} levels without quantize_dropout, "
                f"got shape {tuple(indices.shape)}"
            )
        channel = 1 if self.channel_first else -1
        none = torch.full_like(indices[..., 0], -1)
        levels = [*indices.unbind(-1), *[none] * (self.num_quantizers - given)]
        return torch.stack(
            [
                functional.lookup(level, layer.codebook, channel_dim=channel)
                for level, layer in zip(levels, self._levels, strict=True)
            ]
        )

    def get_output_from_indices(self, indices: Tensor) -> Tensor:
        return self.get_codes_from_indices(indices).sum(dim=0)

    def forward(
        self,
        x: Tensor,
        return_all_codes: bool = False,
        rand_quantize_dropout_fixed_seed: int | None = None,
    ) -> tuple[Tensor, ...]:
        """(quantized, indices (*positions, Q), losses (Q,)), and the codes of all levels."""
        kept = self.num_quantizers
        if self.training and self.quantize_dropout:
            seed = rand_quantize_dropout_fixed_seed
            kept = kept_levels(
                self._seeds.next(x.device) if seed is None else seed,
                self.num_quantizers,
                self.quantize_dropout_cutoff_index,
                self.quantize_dropout_multiple_of,
            )
        quantized, residual = torch.zeros_like(x), x
        indices, losses = [], []
        for layer in self._levels[:kept]:
            part, found, loss = layer(residual)
            residual = residual - part.detach()
            quantized = quantized + part
            indices.append(found)
            losses.append(loss)
        dropped = self.num_quantizers - kept
        indices += [torch.full_like(indices[0], -1)] * dropped
        losses += [torch.zeros_like(losses[0])] * dropped
        out = (quantized, torch.stack(indices, dim=-1), torch.stack(losses, dim=-1))
        return (*out, self.get_codes_from_indices(out[1])) if return_all_codes else out
