"""Drop-in classes for audiocraft (``audiocraft.quantization``)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vqkernels._soft import code_orthogonality
from vqkernels.compat._euclidean import EuclideanCodebookBase
from vqkernels.compat._euclidean_levels import (
    ResidualVectorQuantizationBase,
    VectorQuantizationBase,
)
from vqkernels.compat._peer import Peer
from vqkernels.outputs import VQOutput

__all__ = [
    "EuclideanCodebook",
    "QuantizedResult",
    "ResidualVectorQuantization",
    "ResidualVectorQuantizer",
    "VectorQuantization",
]

_CORE = "audiocraft.quantization.core_vq."


class EuclideanCodebook(EuclideanCodebookBase):
    """``audiocraft.quantization.core_vq.EuclideanCodebook``; arguments as in its base."""

    __doc__ = EuclideanCodebookBase.__doc__
    replaces: ClassVar[tuple[str, ...]] = (_CORE + "EuclideanCodebook",)

    def __init__(
        self,
        dim: int,
        codebook_size: int,
        kmeans_init: bool = False,
        kmeans_iters: int = 10,
        decay: float = 0.8,
        epsilon: float = 1e-5,
        threshold_ema_dead_code: float = 2.0,
        *,
        bug_compatible: bool = True,
    ) -> None:
        super().__init__(
            dim,
            codebook_size,
            kmeans_init,
            kmeans_iters,
            decay,
            epsilon,
            threshold_ema_dead_code,
            bug_compatible=bug_compatible,
        )


class VectorQuantization(VectorQuantizationBase):
    """``audiocraft.quantization.core_vq.VectorQuantization``: one level.

    Args:
        dim: channels of the input.
        codebook_dim: length of a code; where it is not ``dim``, Linear layers are around the
            codebook.
        channels_last: x is (B, N, dim) and not (B, dim, N).
        commitment_weight: factor of ``mse(x, sg(q))``.
        orthogonal_reg_weight: factor of ``vqkernels.code_orthogonality`` of the moved codebook in
            the loss of a training step. It has no gradient, as the codebook is a buffer.
        orthogonal_reg_active_codes_only: only the codes that the batch uses take part in it.
        orthogonal_reg_max_codes: at most that many, drawn at random.
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
        decay: float = 0.8,
        epsilon: float = 1e-5,
        kmeans_init: bool = False,
        kmeans_iters: int = 10,
        threshold_ema_dead_code: float = 2.0,
        channels_last: bool = False,
        commitment_weight: float = 1.0,
        orthogonal_reg_weight: float = 0.0,
        orthogonal_reg_active_codes_only: bool = False,
        orthogonal_reg_max_codes: int | None = None,
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
        self.channels_last = channels_last
        self.orthogonal_reg_weight = orthogonal_reg_weight
        self.orthogonal_reg_active_codes_only = orthogonal_reg_active_codes_only
        self.orthogonal_reg_max_codes = orthogonal_reg_max_codes

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        return {
            **super().arguments_of(theirs),
            "channels_last": theirs.channels_last,
            "orthogonal_reg_weight": theirs.orthogonal_reg_weight,
            "orthogonal_reg_active_codes_only": theirs.orthogonal_reg_active_codes_only,
            "orthogonal_reg_max_codes": theirs.orthogonal_reg_max_codes,
        }

    @property
    def inited(self) -> Tensor:
        """Whether the codebook is initialised: float32 (1,)."""
        found: Tensor = self._codebook.inited
        return found

    def _regularized(self, loss: Tensor, out: VQOutput) -> Tensor:
        if self.orthogonal_reg_weight <= 0:
            return loss
        takes = torch.ones_like(out.usage.counts)
        if self.orthogonal_reg_active_codes_only:
            takes = out.usage.counts
        if self.orthogonal_reg_max_codes is not None:
            takes = _some_of(takes, self.orthogonal_reg_max_codes)
        return loss + code_orthogonality(self.codebook, takes) * self.orthogonal_reg_weight


def _some_of(takes: Tensor, most: int) -> Tensor:
    """At most ``most`` of those above 0, drawn at random."""
    rank = torch.where(takes > 0, torch.rand(takes.shape, device=takes.device), -1.0)
    drawn = rank.topk(min(most, len(takes))).indices
    return torch.zeros_like(takes).index_fill(0, drawn, 1) * takes


class ResidualVectorQuantization(ResidualVectorQuantizationBase):
    """``audiocraft.quantization.core_vq.ResidualVectorQuantization``.

    Args:
        num_quantizers: number of levels.
        kwargs: of ``VectorQuantization``.

    The commitment loss of every level reaches x; ``project_out`` gets no gradient.
    """

    replaces: ClassVar[tuple[str, ...]] = (_CORE + "ResidualVectorQuantization",)

    def __init__(self, *, num_quantizers: int, **kwargs: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(VectorQuantization(**kwargs) for _ in range(num_quantizers))

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        first = VectorQuantization.arguments_of(theirs.layers[0])
        return {"num_quantizers": len(theirs.layers), **first}


@dataclass
class QuantizedResult:
    """What ``ResidualVectorQuantizer`` returns.

    Attributes:
        x: the quantized form of the input.
        codes: int64 (B, n_q, N).
        bandwidth: 0-d, kb/s.
        penalty: 0-d, mean of the losses of the levels.
        metrics: empty.
    """

    x: Tensor
    codes: Tensor
    bandwidth: Tensor
    penalty: Tensor | None = None
    metrics: dict[str, Any] = field(default_factory=dict)


class ResidualVectorQuantizer(Peer):
    """``audiocraft.quantization.vq.ResidualVectorQuantizer``: the quantizer of compression models.

    Args:
        dimension: channels of x and length of a code.
        n_q: number of levels.
        q_dropout: a training forward draws how many levels it runs, 1 to ``num_codebooks``.
        bins: K, number of codes of each level.
        decay, kmeans_init, kmeans_iters, threshold_ema_dead_code, orthogonal_reg_weight,
            orthogonal_reg_active_codes_only, orthogonal_reg_max_codes, bug_compatible: as in
            ``VectorQuantization``.
    """

    replaces: ClassVar[tuple[str, ...]] = ("audiocraft.quantization.vq.ResidualVectorQuantizer",)
    codebook_key = "_codebook.embed"
    settings: ClassVar[tuple[str, ...]] = ("n_q", "q_dropout")

    def __init__(
        self,
        dimension: int = 256,
        n_q: int = 8,
        q_dropout: bool = False,
        bins: int = 1024,
        decay: float = 0.99,
        kmeans_init: bool = True,
        kmeans_iters: int = 10,
        threshold_ema_dead_code: float = 2.0,
        orthogonal_reg_weight: float = 0.0,
        orthogonal_reg_active_codes_only: bool = False,
        orthogonal_reg_max_codes: int | None = None,
        *,
        bug_compatible: bool = True,
    ) -> None:
        super().__init__()
        self.max_n_q = n_q
        self.n_q = n_q
        self.q_dropout = q_dropout
        self.dimension = dimension
        self.bins = bins
        shared = {
            "decay": decay,
            "kmeans_init": kmeans_init,
            "kmeans_iters": kmeans_iters,
            "threshold_ema_dead_code": threshold_ema_dead_code,
            "orthogonal_reg_weight": orthogonal_reg_weight,
            "orthogonal_reg_active_codes_only": orthogonal_reg_active_codes_only,
            "orthogonal_reg_max_codes": orthogonal_reg_max_codes,
        }
        for name, value in shared.items():
            setattr(self, name, value)
        self.vq = ResidualVectorQuantization(
            num_quantizers=n_q,
            dim=dimension,
            codebook_size=bins,
            bug_compatible=bug_compatible,
            **shared,
        )

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        names = (
            *("dimension", "q_dropout", "bins", "decay", "kmeans_init", "kmeans_iters"),
            *("threshold_ema_dead_code", "orthogonal_reg_weight"),
            *("orthogonal_reg_active_codes_only", "orthogonal_reg_max_codes"),
        )
        return {"n_q": theirs.max_n_q, **{name: getattr(theirs, name) for name in names}}

    def forward(self, x: Tensor, frame_rate: int) -> QuantizedResult:
        """Quantizes x, (B, dimension, N), of ``frame_rate`` frames per second."""
        n_q = self.n_q
        if self.training and self.q_dropout:
            n_q = int(torch.randint(1, self.n_q + 1, (1,)).item())
        quantized, codes, losses = self.vq(x, n_q=n_q)
        used = n_q * math.log2(self.bins) * frame_rate / 1000
        bandwidth = torch.full((), used, dtype=x.dtype, device=x.device)
        return QuantizedResult(quantized, codes.transpose(0, 1), bandwidth, penalty=losses.mean())

    def encode(self, x: Tensor) -> Tensor:
        """Indices (B, num_codebooks, N) of x, (B, dimension, N)."""
        return self.vq.encode(x, n_q=self.n_q).transpose(0, 1)

    def decode(self, codes: Tensor) -> Tensor:
        """What codes (B, L', N), of the first L' levels, stand for: (B, dimension, N)."""
        return self.vq.decode(codes.transpose(0, 1))

    @property
    def total_codebooks(self) -> int:
        """Levels that there are."""
        return self.max_n_q

    @property
    def num_codebooks(self) -> int:
        """Levels in use."""
        return self.n_q

    def set_num_codebooks(self, n: int) -> None:
        """Uses the first n levels.

        Raises:
            ValueError: n is not in [1, ``total_codebooks``].
        """
        if not 1 <= n <= self.max_n_q:
            raise ValueError(f"n must be in [1, {self.max_n_q}], got {n}")
        self.n_q = n
