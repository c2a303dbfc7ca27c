"""Drop-in classes for the quantizer of ``transformers.EncodecModel``."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vqkernels.compat.transformers._levels import (
    InferenceCodebook,
    InferenceLevel,
    InferenceLevels,
)

_THEIRS = "transformers.models.encodec.modeling_encodec."


class EncodecEuclideanCodebook(InferenceCodebook):
    """``EncodecEuclideanCodebook`` of transformers: the codes of one level, for inference.

    Args:
        config: has ``codebook_size`` (K) and ``codebook_dim`` (D).
    """

    replaces: ClassVar[tuple[str, ...]] = (_THEIRS + "EncodecEuclideanCodebook",)
    codebook_key = "embed"
    embed: Tensor

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.codebook_size = config.codebook_size
        codes = torch.zeros(config.codebook_size, config.codebook_dim)
        self.register_buffer("inited", torch.ones(1))
        self.register_buffer("cluster_size", torch.zeros(config.codebook_size))
        self.register_buffer("embed", codes)
        self.register_buffer("embed_avg", codes.clone())

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        return {
            "config": SimpleNamespace(
                codebook_size=theirs.codebook_size, codebook_dim=theirs.embed.shape[1]
            )
        }


class EncodecVectorQuantization(InferenceLevel):
    """``EncodecVectorQuantization`` of transformers: one level.

    Args:
        config: as for ``EncodecEuclideanCodebook``.
    """

    replaces: ClassVar[tuple[str, ...]] = (_THEIRS + "EncodecVectorQuantization",)
    codebook_key = "codebook.embed"

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.codebook = EncodecEuclideanCodebook(config)

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        return EncodecEuclideanCodebook.arguments_of(theirs.codebook)


class EncodecResidualVectorQuantizer(InferenceLevels):
    """``EncodecResidualVectorQuantizer`` of transformers: the ``quantizer`` of ``EncodecModel``.

    Residual vector quantization (Zeghidour et al. 2021, arXiv 2107.03312, algorithm 1), for
    inference. Every level is the exact search on its residual.

    Args:
        config: has ``codebook_size`` (K), ``codebook_dim`` (D), ``frame_rate`` (frames per second)
            and ``num_quantizers`` (levels).
    """

    replaces: ClassVar[tuple[str, ...]] = (_THEIRS + "EncodecResidualVectorQuantizer",)
    codebook_key = "codebook.embed"

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.codebook_size = config.codebook_size
        self.frame_rate = config.frame_rate
        self.num_quantizers = config.num_quantizers
        self.layers = nn.ModuleList(
            EncodecVectorQuantization(config) for _ in range(config.num_quantizers)
        )

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        config = EncodecVectorQuantization.arguments_of(theirs.layers[0])["config"]
        config.frame_rate = theirs.frame_rate
        config.num_quantizers = theirs.num_quantizers
        return {"config": config}

    def get_num_quantizers_for_bandwidth(self, bandwidth: float | None = None) -> int:
        """Levels that a bandwidth in kb/s has room for, at least 1; all for None or 0."""
        if bandwidth is None or bandwidth <= 0.0:
            return self.num_quantizers
        bits_per_second = math.log2(self.codebook_size) * self.frame_rate
        return max(1, math.floor(bandwidth * 1000 / bits_per_second))

    def encode(self, embeddings: Tensor, bandwidth: float | None = None) -> Tensor:
        """Indices (L, B, T) of embeddings (B, D, T), of as many levels as bandwidth allows."""
        return self._codes(embeddings, self.get_num_quantizers_for_bandwidth(bandwidth))

    def decode(self, codes: Tensor) -> Tensor:
        """What codes (L', B, T), of the first L' levels, stand for: (B, D, T)."""
        return self._sum(codes)
