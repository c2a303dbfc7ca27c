"""ImplicitCodebook: what the quantizers share whose codes are a formula."""

from __future__ import annotations

from torch import Tensor

from vqkernels import _checks, ops
from vqkernels._layout import row_shape
from vqkernels.nn._learned_codebook import LearnedCodebook
from vqkernels.nn._quantizer import Quantizer


class ImplicitCodebook(Quantizer):
    """A quantizer that holds no codes: there is nothing to initialise, to learn or to save.

    Attributes:
        num_embeddings: K, number of codes. Nothing of that size is ever allocated beyond 2^20.
    """

    num_embeddings: int

    def __init__(self, embedding_dim: int, *, channel_dim: int, backend: str | None) -> None:
        super().__init__()
        _checks.channel_option(channel_dim)
        if backend is not None:
            _checks.one_of("backend", backend, ops.dispatch.BACKENDS)
        self.embedding_dim = embedding_dim
        self.channel_dim = channel_dim
        self.backend = backend

    def _check(self, x: Tensor, mask: Tensor | None) -> int:
        channel = _checks.vectors(x, self.embedding_dim, self.channel_dim)
        _checks.mask(mask, x, row_shape(x, channel))
        return channel

    def _codebooks(self) -> list[LearnedCodebook]:
        return []

    def init_codebook(self, x: Tensor, mask: Tensor | None = None) -> None:
        """Does nothing but check its arguments: the codes are fixed."""
        self._check(x, mask)
