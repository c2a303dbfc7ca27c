"""MishaLaskin/vqvae: its quantizer (``models/quantizer.py``)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vqkernels.compat._one_hot import one_hot
from vqkernels.compat._vqgan import BetaQuantizer


class VectorQuantizer(BetaQuantizer):
    """Nearest code by squared distance; beta is on the codebook term of the loss.

    Args:
        n_e: K, number of codes.
        e_dim: D, length of a code.
        beta: weight of the codebook term.
    """

    replaces = ("models.quantizer.VectorQuantizer",)
    copied = True

    def __init__(self, n_e: int, e_dim: int, beta: float) -> None:
        super().__init__(n_e, e_dim, beta)
        self.e_dim = e_dim

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        return {"n_e": theirs.n_e, "e_dim": theirs.e_dim, "beta": theirs.beta}

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """z (B, D, H, W) to (loss, quantized, perplexity, one-hot (N, K), indices (N, 1)).

        N = B*H*W. The one-hot matrix is built when it is read.
        """
        out = self._quantize(z, *self._weights)
        indices = out.indices.reshape(-1)
        encodings = one_hot(indices, self.n_e, torch.get_default_dtype())
        return out.loss, out.quantized, out.usage.perplexity, encodings, indices[:, None]
