"""ResidualSimVQ: levels of SimVQ, each for what the ones before it have left."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vqkernels import functional
from vqkernels.compat.vector_quantize_pytorch._level_dropout import LevelDropout
from vqkernels.compat.vector_quantize_pytorch.sim_vq import SimVQ


class ResidualSimVQ(LevelDropout):
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
        self._set_dropout(
            num_quantizers,
            quantize_dropout,
            quantize_dropout_cutoff_index,
            quantize_dropout_multiple_of,
        )
        self.channel_first = channel_first
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

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        return {**SimVQ.arguments_of(theirs.layers[0]), **cls._dropout_of(theirs)}

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
        channel = 1 if self.channel_first else -1
        return torch.stack(
            [
                functional.lookup(level, layer.codebook, channel_dim=channel)
                for level, layer in zip(self._by_level(indices), self._levels, strict=True)
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
        kept = self._kept(x.device, rand_quantize_dropout_fixed_seed)
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
