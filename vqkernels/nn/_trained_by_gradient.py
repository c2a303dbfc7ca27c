"""TrainedByGradient: quantizers that keep no statistics; what they learn, an optimizer does."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from vqkernels import _checks, functional, ops
from vqkernels._layout import row_shape
from vqkernels.nn._full_precision import FullPrecision
from vqkernels.nn._learned_codebook import LearnedCodebook
from vqkernels.nn._quantizer import Quantizer


class TrainedByGradient(Quantizer, FullPrecision):
    """K codes of D channels for x of D channels. Parameters and buffers stay float32.

    Attributes:
        codebook: (K, D), the codes that ``decode`` looks up.
    """

    codebook: Tensor

    def __init__(
        self, num_embeddings: int, embedding_dim: int, *, channel_dim: int, backend: str | None
    ) -> None:
        super().__init__()
        _checks.integer_at_least("num_embeddings", num_embeddings, 1)
        _checks.integer_at_least("embedding_dim", embedding_dim, 1)
        _checks.channel_option(channel_dim)
        if backend is not None:
            _checks.one_of("backend", backend, ops.dispatch.BACKENDS)
        self.num_embeddings = int(num_embeddings)
        self.embedding_dim = int(embedding_dim)
        self.channel_dim = channel_dim
        self.backend = backend

    def decode(self, indices: Tensor) -> Tensor:
        """Vectors of the codes, float32, channels at ``channel_dim``; index -1 gives zeros."""
        return functional.lookup(indices, self.codebook, channel_dim=self.channel_dim)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Indices of the codes that eval mode chooses: int64, positions of x."""
        return self._choose(x, self._check(x, None))

    @abstractmethod
    def _choose(self, x: Tensor, channel: int) -> Tensor: ...

    def init_codebook(self, x: Tensor, mask: Tensor | None = None) -> None:
        """Does nothing: there is no k-means initialisation."""

    def _codebooks(self) -> list[LearnedCodebook]:
        return []

    def _check(self, x: Tensor, mask: Tensor | None) -> int:
        channel = _checks.vectors(x, self.embedding_dim, self.channel_dim)
        state = next(iter([*self.buffers(), *self.parameters()]))
        _checks.same_device("x", x, "codebook", state)
        _checks.mask(mask, x, row_shape(x, channel))
        ops.dispatch.choose("vq_forward", x, state, self.backend)
        return channel
