"""RandomProjectionVQ: labels from a random projection and random codes, both frozen."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from vqkernels import _checks
from vqkernels._layout import row_shape
from vqkernels._numerics import wide
from vqkernels.nn._full_precision import FullPrecision
from vqkernels.nn._learned_codebook import LearnedCodebook
from vqkernels.nn._quantizer import Learnt, Quantizer
from vqkernels.nn.grouped_vq import GroupedVQ
from vqkernels.nn.vector_quantizer import VectorQuantizer
from vqkernels.outputs import VQOutput


class RandomProjectionVQ(Quantizer, FullPrecision):
    """Labels for masked prediction (BEST-RQ, Chiu et al. 2022, arXiv 2202.01855)::

        u = (x - mean(x)) / std(x)                 (over the channels; x itself without ``norm``)
        indices[h] = argmin_k | unit(c_hk) - unit(A_h u) |     for each codebook h

    Nothing is trained: A is a Xavier normal draw, the codes are directions of a normal draw, both
    from ``seed``, so that all processes, and all runs, label alike. The loss is 0 and no gradient
    exists. Indices are exact for the float32 projections; under autocast too.

    ``quantized`` are the unit codes, of H * code_dim channels and not of x's: labels have no
    vectors of x's kind. At masked positions they are zero, as ``decode`` has it for index -1.

    Args:
        num_embeddings: K, codes per codebook.
        embedding_dim: D, channels of x.
        code_dim: channels of a code.
        codebooks: H, number of labels per vector.
        norm: whether vectors are normalised first, without which few codes may get all of them.
        seed: of the draws, at least 0.
        channel_dim: dimension of x that holds the D channels.
        backend: "native", "triton", "reference", or None for the first available one.

    Attributes:
        projection: (H * code_dim, D) float32 buffer, A of all codebooks.
        quantizer: ``GroupedVQ`` of H frozen quantizers with the cosine metric.

    Raises:
        TypeError, ValueError: an argument breaks its contract.
    """

    projection: Tensor

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        code_dim: int,
        *,
        codebooks: int = 1,
        norm: bool = True,
        seed: int = 0,
        channel_dim: int = 1,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        _checks.integer_at_least("num_embeddings", num_embeddings, 1)
        _checks.integer_at_least("embedding_dim", embedding_dim, 1)
        _checks.integer_at_least("code_dim", code_dim, 1)
        _checks.integer_at_least("codebooks", codebooks, 1)
        _checks.boolean("norm", norm)
        _checks.integer_at_least("seed", seed, 0)
        generator = torch.Generator().manual_seed(int(seed))
        draw = functools.partial(torch.randn, generator=generator, dtype=torch.float32)
        std = math.sqrt(2.0 / (embedding_dim + code_dim))
        shape = (codebooks * code_dim, embedding_dim)
        self.register_buffer("projection", draw(shape) * std)
        self.quantizer = GroupedVQ(
            [
                VectorQuantizer(
                    num_embeddings,
                    code_dim,
                    update=None,
                    metric="cosine",
                    init=draw(num_embeddings, code_dim),
                    channel_dim=channel_dim,
                    backend=backend,
                )
                for _ in range(codebooks)
            ]
        )
        self.embedding_dim = int(embedding_dim)
        self.channel_dim = channel_dim
        self.norm = norm
        self._code_shape = self.quantizer._code_shape
        self._usage_shape = self.quantizer._usage_shape

    @property
    def _decoded_dim(self) -> int:
        return self.quantizer.embedding_dim

    @torch.no_grad()
    def forward(self, x: Tensor, mask: Tensor | None = None) -> VQOutput:
        """Labels x.

        Args:
            x: (B, D, *spatial) with ``channel_dim=1``; float32, float16 or bfloat16.
            mask: bool, positions of x; False positions count nowhere.

        Returns:
            VQOutput(quantized, indices, loss, usage): indices (*positions, H), ``quantized`` the
            unit codes in x's dtype, loss 0, usage per codebook of the unit projections.
        """
        return super().forward(x, mask)

    @torch.no_grad()
    def _step(self, x: Tensor, mask: Tensor | None) -> tuple[VQOutput, Learnt]:
        channel = self._check(x, mask)
        out, learnt = self.quantizer._step(self._project(x, channel), mask)
        quantized = out.quantized.to(x.dtype)
        if mask is not None:
            quantized = torch.where(mask.unsqueeze(channel), quantized, 0.0)
        loss = torch.zeros_like(out.loss)
        return VQOutput(quantized, out.indices, loss, out.usage), learnt

    def _project(self, x: Tensor, channel: int) -> Tensor:
        rows = x.movedim(channel, -1).to(wide(x.dtype))
        with torch.autocast(x.device.type, enabled=False):
            if self.norm:
                rows = F.layer_norm(rows, (self.embedding_dim,))
            return F.linear(rows, self.projection.to(rows.dtype)).movedim(-1, channel)

    def _codebooks(self) -> list[LearnedCodebook]:
        return self.quantizer._codebooks()

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """The labels: int64 (*positions, H)."""
        return self.quantizer.encode(self._project(x, self._check(x, None)))

    def decode(self, indices: Tensor) -> Tensor:
        """The unit codes, float32, H * code_dim channels; index -1 gives zeros."""
        return self.quantizer.decode(indices)

    def init_codebook(self, x: Tensor, mask: Tensor | None = None) -> None:
        """Does nothing: the codes are drawn."""

    def _check(self, x: Tensor, mask: Tensor | None) -> int:
        channel = _checks.vectors(x, self.embedding_dim, self.channel_dim)
        _checks.same_device("x", x, "projection", self.projection)
        _checks.mask(mask, x, row_shape(x, channel))
        return channel

    def extra_repr(self) -> str:
        return f"embedding_dim={self.embedding_dim}, norm={self.norm}"
