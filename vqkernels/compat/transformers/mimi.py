"""Drop-in classes for the quantizer of ``transformers.MimiModel``."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vqkernels.compat._peer import Peer
from vqkernels.compat.transformers._levels import (
    InferenceCodebook,
    InferenceLevel,
    InferenceLevels,
)

_THEIRS = "transformers.models.mimi.modeling_mimi."


class MimiEuclideanCodebook(InferenceCodebook):
    """``MimiEuclideanCodebook`` of transformers: codes that are sums over their cluster's usage.

    Args:
        config: has ``codebook_size`` (K) and ``codebook_dim`` (D).
        epsilon: least usage that a sum is divided by.
    """

    replaces: ClassVar[tuple[str, ...]] = (_THEIRS + "MimiEuclideanCodebook",)
    codebook_key = "embed_sum"
    embed_sum: Tensor
    cluster_usage: Tensor

    def __init__(self, config: Any, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.codebook_size = config.codebook_size
        self.epsilon = epsilon
        self.register_buffer("initialized", torch.ones(1))
        self.register_buffer("cluster_usage", torch.ones(config.codebook_size))
        self.register_buffer("embed_sum", torch.zeros(config.codebook_size, config.codebook_dim))
        self._kept: tuple[Any, Tensor] | None = None

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        config = SimpleNamespace(
            codebook_size=theirs.codebook_size, codebook_dim=theirs.embed_sum.shape[1]
        )
        return {"config": config, "epsilon": theirs.epsilon}

    @property
    def embed(self) -> Tensor:
        """``embed_sum / max(cluster_usage, epsilon)``, kept until one of the two changes.

        What is written through ``.data`` does not count as a change.
        """
        sources = (self.embed_sum, self.cluster_usage)
        if torch.compiler.is_compiling() or any(source.is_inference() for source in sources):
            return self._divided()
        seen = [(source, source._version) for source in sources]
        if self._kept is None or any(
            old is not new or version != now
            for (old, version), (new, now) in zip(self._kept[0], seen, strict=True)
        ):
            self._kept = seen, self._divided()
        return self._kept[1]

    def _divided(self) -> Tensor:
        return self.embed_sum / self.cluster_usage.clamp(min=self.epsilon)[:, None]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}


class MimiVectorQuantization(InferenceLevel):
    """``MimiVectorQuantization`` of transformers: one level.

    Args:
        config: as for ``MimiEuclideanCodebook``.
    """

    replaces: ClassVar[tuple[str, ...]] = (_THEIRS + "MimiVectorQuantization",)
    codebook_key = "codebook.embed_sum"

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.codebook = MimiEuclideanCodebook(config)

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        return {"config": MimiEuclideanCodebook.arguments_of(theirs.codebook)["config"]}


class MimiResidualVectorQuantizer(InferenceLevels):
    """``MimiResidualVectorQuantizer`` of transformers: levels between two 1x1 convolutions.

    Args:
        config: has ``codebook_size`` (K), ``codebook_dim`` (D), ``frame_rate``,
            ``num_quantizers`` (levels), ``hidden_size`` (channels of the input) and
            ``vector_quantization_hidden_dimension`` (the convolutions are there if it differs).
        num_quantizers: levels, where not those of ``config``.
    """

    replaces: ClassVar[tuple[str, ...]] = (_THEIRS + "MimiResidualVectorQuantizer",)
    codebook_key = "codebook.embed_sum"
    input_proj: nn.Module | None
    output_proj: nn.Module | None

    def __init__(self, config: Any, num_quantizers: int | None = None) -> None:
        super().__init__()
        self.codebook_size = config.codebook_size
        self.frame_rate = config.frame_rate
        self.num_quantizers = config.num_quantizers if num_quantizers is None else num_quantizers
        self.layers = nn.ModuleList(
            MimiVectorQuantization(config) for _ in range(self.num_quantizers)
        )
        outer, inner = config.hidden_size, config.vector_quantization_hidden_dimension
        projected = outer != inner
        self.input_proj = nn.Conv1d(outer, inner, 1, bias=False) if projected else None
        self.output_proj = nn.Conv1d(inner, outer, 1, bias=False) if projected else None

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        first = theirs.layers[0].codebook
        config = MimiEuclideanCodebook.arguments_of(first)["config"]
        config.frame_rate = theirs.frame_rate
        config.num_quantizers = theirs.num_quantizers
        projection = theirs.input_proj
        config.hidden_size = projection.in_channels if projection else config.codebook_dim
        config.vector_quantization_hidden_dimension = (
            projection.out_channels if projection else config.codebook_dim
        )
        return {"config": config}

    def encode(self, embeddings: Tensor, num_quantizers: int | None = None) -> Tensor:
        """Indices (L, B, T) of embeddings (B, hidden_size, T), of the first L levels."""
        if self.input_proj is not None:
            embeddings = self.input_proj(embeddings)
        levels = self.num_quantizers if num_quantizers is None else num_quantizers
        return self._codes(embeddings, levels)

    def decode(self, codes: Tensor) -> Tensor:
        """What codes (B, L', T), of the first L' levels, stand for: (B, hidden_size, T)."""
        total = self._sum(codes.transpose(0, 1))
        return total if self.output_proj is None else self.output_proj(total)


class MimiSplitResidualVectorQuantizer(Peer):
    """``MimiSplitResidualVectorQuantizer`` of transformers: the ``quantizer`` of ``MimiModel``.

    Semantic and acoustic levels stand side by side: both quantize the input itself, and what they
    stand for is added (Défossez et al. 2024, arXiv 2410.00037, section 3.3.3).

    Args:
        config: as for ``MimiResidualVectorQuantizer``, with ``num_semantic_quantizers``.
    """

    replaces: ClassVar[tuple[str, ...]] = (_THEIRS + "MimiSplitResidualVectorQuantizer",)
    codebook_key = "codebook.embed_sum"

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.codebook_size = config.codebook_size
        self.frame_rate = config.frame_rate
        self.max_num_quantizers = config.num_quantizers
        self.num_semantic_quantizers = config.num_semantic_quantizers
        self.num_acoustic_quantizers = config.num_quantizers - config.num_semantic_quantizers
        self.semantic_residual_vector_quantizer = MimiResidualVectorQuantizer(
            config, self.num_semantic_quantizers
        )
        self.acoustic_residual_vector_quantizer = MimiResidualVectorQuantizer(
            config, self.num_acoustic_quantizers
        )

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        semantic = theirs.semantic_residual_vector_quantizer
        config = MimiResidualVectorQuantizer.arguments_of(semantic)["config"]
        config.num_quantizers = theirs.max_num_quantizers
        config.num_semantic_quantizers = theirs.num_semantic_quantizers
        return {"config": config}

    def encode(self, embeddings: Tensor, num_quantizers: int | None = None) -> Tensor:
        """Indices (L, B, T) of embeddings (B, hidden_size, T): the semantic levels come first.

        Raises:
            ValueError: fewer levels than the semantic ones, or more than there are.
        """
        levels = self.max_num_quantizers if num_quantizers is None else num_quantizers
        least, most = self.num_semantic_quantizers, self.max_num_quantizers
        if not least <= levels <= most:
            raise ValueError(f"num_quantizers must be in [{least}, {most}], got {levels}")
        codes = self.semantic_residual_vector_quantizer.encode(embeddings)
        if levels == least:
            return codes
        acoustic = self.acoustic_residual_vector_quantizer.encode(embeddings, levels - least)
        return torch.cat([codes, acoustic])

    def decode(self, codes: Tensor) -> Tensor:
        """What codes (B, L', T), of the first L' levels, stand for: (B, hidden_size, T)."""
        split = self.num_semantic_quantizers
        total = self.semantic_residual_vector_quantizer.decode(codes[:, :split])
        if codes.shape[1] > split:
            total = total + self.acoustic_residual_vector_quantizer.decode(codes[:, split:])
        return total
