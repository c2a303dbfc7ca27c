"""Drop-in classes for encodec (``encodec.quantization``)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vqkernels.compat._euclidean import EuclideanCodebookBase
from vqkernels.compat._euclidean_levels import (
    ResidualVectorQuantizationBase,
    VectorQuantizationBase,
)
from vqkernels.compat._peer import Peer

__all__ = [
    "EuclideanCodebook",
    "QuantizedResult",
    "ResidualVectorQuantization",
    "ResidualVectorQuantizer",
    "VectorQuantization",
]

_CORE = "encodec.quantization.core_vq."


class EuclideanCodebook(EuclideanCodebookBase):
    """``encodec.quantization.core_vq.EuclideanCodebook``; arguments as in its base."""

    __doc__ = EuclideanCodebookBase.__doc__
    replaces: ClassVar[tuple[str, ...]] = (_CORE + "EuclideanCodebook",)


class VectorQuantization(VectorQuantizationBase):
    """``encodec.quantization.core_vq.VectorQuantization``: one level, (B, dim, N) in and out.

    Args:
        dim: channels of the input.
        codebook_dim: length of a code; where it is not ``dim``, Linear layers are around the
            codebook.
        commitment_weight: factor of ``mse(x, sg(q))``.
        codebook_size, decay, epsilon, kmeans_init, kmeans_iters, threshold_ema_dead_code,
            bug_compatible: as in ``EuclideanCodebook``.
    """

    replaces: ClassVar[tuple[str, ...]] = (_CORE + "VectorQuantization",)
    _codebook_class = EuclideanCodebook

    def __init__(
        self,
        dim: int,
        codebook_size: int,
        codebook_dim: int | None = None,
        decay: float = 0.99,
        epsilon: float = 1e-5,
        kmeans_init: bool = True,
        kmeans_iters: int = 50,
        threshold_ema_dead_code: float = 2,
        commitment_weight: float = 1.0,
        *,
        bug_compatible: bool = True,
    ) -> None:
        super().__init__(
            dim,
            codebook_dim,
            commitment_weight,
            codebook_size=codebook_size,
            kmeans_init=kmeans_init,
            kmeans_iters=kmeans_iters,
            decay=decay,
            epsilon=epsilon,
            threshold_ema_dead_code=threshold_ema_dead_code,
            bug_compatible=bug_compatible,
        )


class ResidualVectorQuantization(ResidualVectorQuantizationBase):
    """``encodec.quantization.core_vq.ResidualVectorQuantization``: levels of VectorQuantization.

    Args:
        num_quantizers: number of levels.
        bug_compatible: True does what theirs does, with its third slip: residuals are taken from
            the straight-through outputs, so that the commitment losses of the levels after the
            first have no gradient. False corrects it, and those of ``EuclideanCodebook``.
        kwargs: of ``VectorQuantization``.
    """

    replaces: ClassVar[tuple[str, ...]] = (_CORE + "ResidualVectorQuantization",)

    def __init__(self, *, num_quantizers: int, bug_compatible: bool = True, **kwargs: Any) -> None:
        super().__init__()
        self.bug_compatible = self._through_residuals = bug_compatible
        self.layers = nn.ModuleList(
            VectorQuantization(bug_compatible=bug_compatible, **kwargs)
            for _ in range(num_quantizers)
        )


@dataclass
class QuantizedResult:
    """What ``ResidualVectorQuantizer`` returns.

    Attributes:
        quantized: like x.
        codes: int64 (n_q, B, N).
        bandwidth: 0-d, kb/s.
        penalty: 0-d, mean of the losses of the levels.
        metrics: empty.
    """

    quantized: Tensor
    codes: Tensor
    bandwidth: Tensor
    penalty: Tensor | None = None
    metrics: dict[str, Any] = field(default_factory=dict)


class ResidualVectorQuantizer(Peer):
    """``encodec.quantization.vq.ResidualVectorQuantizer``: the quantizer of ``EncodecModel``.

    Args:
        dimension: channels of x and length of a code.
        n_q: number of levels.
        bins: K, number of codes of each level.
        decay, kmeans_init, kmeans_iters, threshold_ema_dead_code: as in ``EuclideanCodebook``.
        bug_compatible: as in ``ResidualVectorQuantization``.
    """

    replaces: ClassVar[tuple[str, ...]] = ("encodec.quantization.vq.ResidualVectorQuantizer",)
    codebook_key = "_codebook.embed"

    def __init__(
        self,
        dimension: int = 256,
        n_q: int = 8,
        bins: int = 1024,
        decay: float = 0.99,
        kmeans_init: bool = True,
        kmeans_iters: int = 50,
        threshold_ema_dead_code: float = 2,
        *,
        bug_compatible: bool = True,
    ) -> None:
        super().__init__()
        self.n_q = n_q
        self.dimension = dimension
        self.bins = bins
        self.decay = decay
        self.kmeans_init = kmeans_init
        self.kmeans_iters = kmeans_iters
        self.threshold_ema_dead_code = threshold_ema_dead_code
        self.vq = ResidualVectorQuantization(
            num_quantizers=n_q,
            bug_compatible=bug_compatible,
            dim=dimension,
            codebook_size=bins,
            decay=decay,
            kmeans_init=kmeans_init,
            kmeans_iters=kmeans_iters,
            threshold_ema_dead_code=threshold_ema_dead_code,
        )

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        return {
            "dimension": theirs.dimension,
            "n_q": theirs.n_q,
            "bins": theirs.bins,
            "decay": theirs.decay,
            "kmeans_init": theirs.kmeans_init,
            "kmeans_iters": theirs.kmeans_iters,
            "threshold_ema_dead_code": theirs.threshold_ema_dead_code,
        }

    def forward(
        self, x: Tensor, sample_rate: int, bandwidth: float | None = None
    ) -> QuantizedResult:
        """Quantizes x, (B, dimension, N).

        Args:
            x: what the encoder returns.
            sample_rate: frames of x per second.
            bandwidth: kb/s; as many levels are used as fit, at least 1. All for None or 0.
        """
        n_q = self.get_num_quantizers_for_bandwidth(sample_rate, bandwidth)
        quantized, codes, losses = self.vq(x, n_q=n_q)
        used = n_q * self.get_bandwidth_per_quantizer(sample_rate)
        bandwidth_used = torch.full((), used, dtype=x.dtype, device=x.device)
        return QuantizedResult(quantized, codes, bandwidth_used, penalty=losses.mean())

    def get_num_quantizers_for_bandwidth(
        self, sample_rate: int, bandwidth: float | None = None
    ) -> int:
        """Levels that a bandwidth in kb/s has room for, at least 1; all for None or 0."""
        if not bandwidth or bandwidth <= 0.0:
            return self.n_q
        return max(1, math.floor(bandwidth / self.get_bandwidth_per_quantizer(sample_rate)))

    def get_bandwidth_per_quantizer(self, sample_rate: int) -> float:
        """kb/s of one level at ``sample_rate`` frames per second."""
        return math.log2(self.bins) * sample_rate / 1000

    def encode(self, x: Tensor, sample_rate: int, bandwidth: float | None = None) -> Tensor:
        """Indices (n_q, B, N) of x, (B, dimension, N)."""
        n_q = self.get_num_quantizers_for_bandwidth(sample_rate, bandwidth)
        return self.vq.encode(x, n_q=n_q)

    def decode(self, codes: Tensor) -> Tensor:
        """What codes (L', B, N), of the first L' levels, stand for: (B, dimension, N)."""
        return self.vq.decode(codes)
