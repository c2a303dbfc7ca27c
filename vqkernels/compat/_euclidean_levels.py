"""Levels around an EMA codebook, which encodec and audiocraft share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vqkernels.compat._euclidean import EuclideanCodebookBase
from vqkernels.compat._peer import Peer
from vqkernels.compat._residual_codes import all_at_once, residual_codes
from vqkernels.outputs import VQOutput


class VectorQuantizationBase(Peer):
    """One level: a codebook, between projections where its width is not that of the input."""

    codebook_key: ClassVar[str] = "_codebook.embed"
    settings: ClassVar[tuple[str, ...]] = ("commitment_weight",)
    _codebook_class: ClassVar[type[EuclideanCodebookBase]]
    project_in: nn.Module
    project_out: nn.Module
    channels_last: bool = False

    def __init__(
        self, dim: int, codebook_dim: int | None, commitment_weight: float, **codebook: Any
    ) -> None:
        super().__init__()
        width = dim if codebook_dim is None else codebook_dim
        self.project_in = nn.Identity() if width == dim else nn.Linear(dim, width)
        self.project_out = nn.Identity() if width == dim else nn.Linear(width, dim)
        self._codebook = self._codebook_class(dim=width, **codebook)
        self.epsilon = self._codebook.epsilon
        self.codebook_size = self._codebook.codebook_size
        self.commitment_weight = commitment_weight

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        arguments = EuclideanCodebookBase.arguments_of(theirs._codebook)
        width = arguments.pop("dim")
        projected = isinstance(theirs.project_in, nn.Linear)
        return {
            "dim": theirs.project_in.in_features if projected else width,
            "codebook_dim": width,
            "commitment_weight": theirs.commitment_weight,
            **arguments,
        }

    @property
    def codebook(self) -> Tensor:
        """The codes, (K, D)."""
        return self._codebook.codebook

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Quantizes x, (B, dim, N), or (B, N, dim) with ``channels_last``.

        Returns:
            (quantized like x, indices (B, N), loss (1,)). In training the gradient goes straight
            through and the loss is ``commitment_weight * mse(x, sg(q))``; else it is 0.
        """
        x = self._turned(x)
        out = self._codebook.step(self.project_in(x))
        loss = torch.zeros(1, device=x.device)
        if self.training:
            if not torch.compiler.is_compiling():  # which makes no leaves
                loss.requires_grad_()  # so that backward() may be called where x is a constant
            if self.commitment_weight > 0:
                loss = loss + out.loss * self.commitment_weight
            loss = self._regularized(loss, out)
        quantized = out.quantized if self.training else out.quantized.detach()
        return self._turned(self.project_out(quantized)), out.indices, loss

    def encode(self, x: Tensor) -> Tensor:
        """Indices (B, N) of x, shaped as in ``forward``."""
        return self._codebook.encode(self.project_in(self._turned(x)))

    def decode(self, embed_ind: Tensor) -> Tensor:
        """What indices (B, N) stand for, shaped as x in ``forward``."""
        return self._turned(self.project_out(self._codebook.decode(embed_ind)))

    def _regularized(self, loss: Tensor, out: VQOutput) -> Tensor:
        return loss

    def _turned(self, x: Tensor) -> Tensor:
        """Channels-last where x is as given, and back: one and the same."""
        return x if self.channels_last else x.transpose(1, 2)

    def _is_bare(self) -> bool:
        """Whether this level is a search in its float32 codebook and no more."""
        whole = self._codebook.given_dtype == self.codebook.dtype
        return whole and isinstance(self.project_in, nn.Identity)

    def _may_be_skipped(self) -> bool:
        """Whether nobody sees that its forward does not run: it learns nothing, has no hooks."""
        parts = list(self.modules())
        learns = not self._codebook._init_done or any(part.training for part in parts)
        return not learns and not any(p._forward_hooks or p._forward_pre_hooks for p in parts)


class ResidualVectorQuantizationBase(Peer):
    """Residual vector quantization (Zeghidour et al. 2021, arXiv 2107.03312, algorithm 1).

    Several processes learn the same codebooks, where theirs drift apart. Level after level takes
    part in that, so all processes have to run the same number of levels in a step.
    """

    codebook_key: ClassVar[str] = "_codebook.embed"
    layers: nn.ModuleList
    # Whether residuals are taken from the straight-through outputs, and so lose their gradient.
    # Else they are x less constants: the commitment of every level reaches x.
    _through_residuals: bool = False

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        first = VectorQuantizationBase.arguments_of(theirs.layers[0])
        return {"num_quantizers": len(theirs.layers), **first}

    def forward(self, x: Tensor, n_q: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Quantizes x, shaped as a level takes it, by the first n_q levels; by all if None or 0.

        Returns:
            (quantized like x, indices (n_q, B, N), losses (n_q, 1)).
        """
        levels = self._levels(n_q)
        if all(level._is_bare() and level._may_be_skipped() for level in levels):
            found = all_at_once(x, *self._codebooks(levels))
            if found is not None:
                return *found, torch.zeros(len(levels), 1, device=x.device)
        return self._level_by_level(x, levels)

    def _level_by_level(
        self, x: Tensor, levels: Sequence[VectorQuantizationBase]
    ) -> tuple[Tensor, Tensor, Tensor]:
        total: Any = 0.0
        left, codes, losses = x, [], []
        for level in levels:
            quantized, indices, loss = level(left)
            if not self._through_residuals:
                quantized = quantized.detach()
            left = left - quantized
            total = total + quantized
            codes.append(indices)
            losses.append(loss)
        if self.training and not self._through_residuals:
            total = total + (x - x.detach())  # a zero, which carries the gradient
        return total, torch.stack(codes), torch.stack(losses)

    @torch.no_grad()
    def encode(self, x: Tensor, n_q: int | None = None) -> Tensor:
        """Indices (n_q, B, N) of x, shaped as a level takes it."""
        levels = self._levels(n_q)
        if all(level._is_bare() for level in levels):
            return residual_codes(x, *self._codebooks(levels))
        codes = []
        for level in levels:
            codes.append(level.encode(x))
            x = x - level.decode(codes[-1])
        return torch.stack(codes)

    def decode(self, q_indices: Tensor) -> Tensor:
        """What indices (L', B, N), of the first L' levels, stand for."""
        total = torch.tensor(0.0, device=q_indices.device)
        for level, indices in zip(self._levels(None), q_indices, strict=False):
            total = total + level.decode(indices)
        return total

    def _codebooks(self, levels: Sequence[VectorQuantizationBase]) -> tuple[Sequence[Tensor], int]:
        """The codes of bare levels, and the dimension of x that holds channels."""
        return [level.codebook for level in levels], -1 if levels[0].channels_last else 1

    def _levels(self, n_q: int | None) -> list[VectorQuantizationBase]:
        found: Any = list(self.layers)[: n_q or len(self.layers)]
        levels: list[VectorQuantizationBase] = found
        return levels
