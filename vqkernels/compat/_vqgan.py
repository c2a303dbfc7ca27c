"""The quantizer of VQGAN, which taming-transformers and diffusers have in common."""

from __future__ import annotations

import os
from typing import Any

from torch import Tensor, nn

from vqkernels import _checks
from vqkernels.compat._embedding_quantizer import EmbeddingQuantizer, embedding
from vqkernels.compat._remap import Remapped

Returned = tuple[Tensor, Tensor, tuple[Tensor | None, Tensor | None, Tensor]]


class BetaQuantizer(EmbeddingQuantizer):
    """Its loss has one weight, beta (Esser et al. 2021, arXiv 2012.09841, equation 4).

    With ``legacy`` beta is on the codebook term, where a known slip put it, and without on the
    commitment term, where the paper has it::

        legacy:      loss = mse(sg(q), z) + beta * mse(q, sg(z))
        not legacy:  loss = beta * mse(sg(q), z) + mse(q, sg(z))
    """

    settings = ("beta",)
    embedding: nn.Embedding
    legacy: bool = True

    def __init__(self, n_e: int, embedding_dim: int, beta: float) -> None:
        super().__init__()
        _checks.integer_at_least("n_e", n_e, 1)
        _checks.at_least("beta", beta, 0.0)
        self.n_e = n_e
        self.beta = beta
        self.embedding = embedding(n_e, embedding_dim)

    @property
    def _codebook(self) -> Tensor:
        return self.embedding.weight

    @property
    def _weights(self) -> tuple[float, float]:
        """Those of the commitment and of the codebook term."""
        return (1.0, self.beta) if self.legacy else (self.beta, 1.0)

    def get_codebook_entry(self, indices: Tensor, shape: tuple[int, ...] | None) -> Tensor:
        """The codes of ``indices``: (*indices, D), or as images for ``shape`` (B, H, W, D)."""
        codes: Tensor = self.embedding(indices)
        return codes if shape is None else codes.view(shape).permute(0, 3, 1, 2).contiguous()


class RemappingQuantizer(Remapped, BetaQuantizer):
    """With ``remap``, ``sane_index_shape`` and ``legacy`` as options.

    Args:
        n_e: K, number of codes.
        embedding_dim: D, length of a code; called differently by the two libraries.
        beta: weight of one term of the loss.
        remap: ``.npy`` file with the codes in use, in which indices are then counted.
        unknown_index: what a code outside of ``remap`` becomes: "random", "extra" or an integer.
        sane_index_shape: indices are (B, H, W), not (B*H*W,), or (B*H*W, 1) with ``remap``.
        legacy: which term beta is on.
    """

    settings = ("beta", "legacy", "sane_index_shape")

    def __init__(
        self,
        n_e: int,
        embedding_dim: int,
        beta: float,
        remap: str | os.PathLike[str] | None,
        unknown_index: str | int,
        sane_index_shape: bool,
        legacy: bool,
    ) -> None:
        super().__init__(n_e, embedding_dim, beta)
        self.legacy = legacy
        self.sane_index_shape = sane_index_shape
        self._set_remap(remap, unknown_index, n_e)

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        return {
            "n_e": theirs.n_e,
            "beta": theirs.beta,
            **cls._remap_of(theirs),
            "sane_index_shape": theirs.sane_index_shape,
            "legacy": theirs.legacy,
        }

    def forward(self, z: Tensor) -> Returned:
        """z (B, D, H, W) to (quantized, loss, (None, None, indices)).

        ``quantized`` has the value of the code, exactly, and the gradient of z.
        """
        out = self._quantize(z, *self._weights)
        indices = out.indices
        if self.remap is not None:
            indices = self.remap_to_used(indices)
        if not self.sane_index_shape:
            indices = indices.reshape(-1) if self.remap is None else indices.reshape(-1, 1)
        return out.quantized, out.loss, (None, None, indices)

    def get_codebook_entry(self, indices: Tensor, shape: tuple[int, ...] | None) -> Tensor:
        """As without ``remap``; with it, indices are places in ``used`` and need a ``shape``."""
        if self.remap is not None:
            if shape is None:
                raise ValueError("shape must be (B, H, W, D) with remap, got None")
            indices = self.unmap_to_all(indices.reshape(shape[0], -1)).reshape(-1)
        return super().get_codebook_entry(indices, shape)
