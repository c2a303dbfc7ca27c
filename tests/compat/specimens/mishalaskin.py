"""The quantizer of MishaLaskin/vqvae: taming's first one, whose results it orders differently."""

from __future__ import annotations

from compat.specimens import taming
from torch import Tensor


class VectorQuantizer(taming.VectorQuantizer):
    def forward(self, z: Tensor) -> tuple:
        quantized, loss, (perplexity, encodings, indices) = super().forward(z)
        return loss, quantized, perplexity, encodings, indices
