"""What the residual quantizers of Encodec and Mimi have in common in transformers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vqkernels import functional
from vqkernels.compat._peer import Peer
from vqkernels.compat._residual_codes import residual_codes


class InferenceCodebook(Peer):
    """Codes that do not learn: nearest code by squared distance, exactly, and back.

    The buffers keep whatever dtype the model is given; the search is exact on what they hold.
    """

    codebook_size: int
    embed: Any  # the codes, (K, D): a buffer, or computed from buffers

    def quantize(self, hidden_states: Tensor) -> Tensor:
        """Indices (N,) of the codes nearest to the rows of hidden_states, (N, D)."""
        return self.encode(hidden_states)

    def encode(self, hidden_states: Tensor) -> Tensor:
        """Indices of the codes nearest to hidden_states, (*positions, D)."""
        return functional.nearest_code(hidden_states, self.embed, channel_dim=-1).indices

    def decode(self, embed_ind: Tensor) -> Tensor:
        """The codes of indices (*positions): (*positions, D)."""
        return functional.lookup(embed_ind, self.embed, channel_dim=-1)


class InferenceLevel(Peer):
    """A codebook between channels-first tensors: (B, D, T) to (B, T) and back."""

    codebook: InferenceCodebook

    def encode(self, hidden_states: Tensor) -> Tensor:
        return self.codebook.encode(hidden_states.permute(0, 2, 1))

    def decode(self, embed_ind: Tensor) -> Tensor:
        return self.codebook.decode(embed_ind).permute(0, 2, 1)


class InferenceLevels(Peer):
    """Levels of codebooks, each on what the ones before have left."""

    layers: nn.ModuleList

    def _codes(self, embeddings: Tensor, levels: int) -> Tensor:
        """Indices (levels, B, T) of embeddings (B, D, T)."""
        books = [self._level(number).codebook.embed for number in range(len(self.layers))]
        return residual_codes(embeddings, books[:levels], 1)

    def _sum(self, codes: Tensor) -> Tensor:
        """The sum (B, D, T) of the codes that indices (L', B, T) stand for."""
        total = torch.full((), 0.0, device=codes.device)
        for number, indices in enumerate(codes):
            total = total + self._level(number).decode(indices)
        return total

    def _level(self, number: int) -> InferenceLevel:
        level: Any = self.layers[number]
        found: InferenceLevel = level
        return found
