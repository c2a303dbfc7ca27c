"""zalandoresearch/pytorch-vq-vae: the two quantizers of its notebook."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from vqkernels import _checks
from vqkernels._numerics import fixed_sum
from vqkernels.compat._codebook import PeerCodebook
from vqkernels.compat._embedding_quantizer import EmbeddingQuantizer, embedding, probe_images
from vqkernels.compat._one_hot import one_hot
from vqkernels.compat._peer import Peer
from vqkernels.options import EMA
from vqkernels.outputs import VQOutput

# The notebook is a script: its classes have no import path of their own.
_MODULE = "pytorch_vq_vae"

Returned = tuple[Tensor, Tensor, Tensor, Tensor]


class VectorQuantizer(EmbeddingQuantizer):
    """Nearest code by squared distance (van den Oord et al. 2017, arXiv 1711.00937, equation 3).

    ``loss = mse(q, sg(x)) + commitment_cost * mse(sg(q), x)``

    Args:
        num_embeddings: K, number of codes.
        embedding_dim: D, length of a code.
        commitment_cost: beta of the paper.
    """

    replaces = (f"{_MODULE}.VectorQuantizer",)
    copied = True
    codebook_key = "_embedding.weight"
    settings = ("_commitment_cost",)

    _embedding: nn.Embedding

    def __init__(self, num_embeddings: int, embedding_dim: int, commitment_cost: float) -> None:
        super().__init__()
        _checks.integer_at_least("num_embeddings", num_embeddings, 1)
        _checks.at_least("commitment_cost", commitment_cost, 0.0)
        self._embedding_dim = embedding_dim
        self._num_embeddings = num_embeddings
        self._embedding = embedding(num_embeddings, embedding_dim)
        self._commitment_cost = commitment_cost

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        return {
            "num_embeddings": theirs._num_embeddings,
            "embedding_dim": theirs._embedding_dim,
            "commitment_cost": theirs._commitment_cost,
        }

    @property
    def _codebook(self) -> Tensor:
        return self._embedding.weight

    def forward(self, inputs: Tensor) -> Returned:
        """inputs (B, D, H, W) to (loss, quantized, perplexity, one-hot (B*H*W, K)).

        The one-hot matrix is built when it is read.
        """
        return _returned(self._quantize(inputs, self._commitment_cost, 1.0), self._num_embeddings)


class VectorQuantizerEMA(Peer, PeerCodebook):
    """The codebook is moved by averages (van den Oord et al. 2017, arXiv 1711.00937, appendix A).

    ``loss = commitment_cost * mse(sg(q), x)``. The smoothed cluster size takes the place of the
    average in every step. ``_embedding.weight`` and ``_ema_w`` stay the same Parameters, which
    theirs makes anew in every step: an optimizer holds them and has no gradient for them.

    Args:
        num_embeddings: K, number of codes.
        embedding_dim: D, length of a code.
        commitment_cost: beta of the paper.
        decay: of the averages, in [0, 1).
        epsilon: smoothing of the cluster sizes, in rows.
    """

    replaces = (f"{_MODULE}.VectorQuantizerEMA",)
    copied = True
    codebook_key = "_embedding.weight"
    their_names = {  # noqa: RUF012
        "codebook": "_embedding.weight",
        "embed_sum": "_ema_w",
        "cluster_size": "_ema_cluster_size",
    }

    cluster_size: Tensor
    embed_sum: Tensor
    update: EMA
    _num_embeddings = property(attrgetter("num_embeddings"))
    _embedding_dim = property(attrgetter("embedding_dim"))
    _commitment_cost = property(attrgetter("commitment_weight"))
    _decay = property(attrgetter("update.decay"))
    _epsilon = property(attrgetter("update.epsilon"))

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        commitment_cost: float,
        decay: float,
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__(
            num_embeddings,
            embedding_dim,
            commitment_weight=commitment_cost,
            update=EMA(decay=decay, epsilon=epsilon),
            init="normal",
            revive=None,
        )
        for name in ("codebook", "embed_sum"):
            tensor = self._buffers.pop(name)
            assert tensor is not None
            self.register_parameter(name, nn.Parameter(tensor))
        with torch.no_grad():
            self.codebook.normal_()  # a second draw, as theirs: the generator is left where
            self.embed_sum.normal_()  # theirs leaves it
            self.cluster_size.zero_()

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        return {
            "num_embeddings": theirs._num_embeddings,
            "embedding_dim": theirs._embedding_dim,
            "commitment_cost": theirs._commitment_cost,
            "decay": theirs._decay,
            "epsilon": theirs._epsilon,
        }

    def probe_input(self) -> Tensor:
        return probe_images(self.codebook)

    def forward(self, inputs: Tensor) -> Returned:  # type: ignore[override]
        """inputs (B, D, H, W) to (loss, quantized, perplexity, one-hot (B*H*W, K)).

        The one-hot matrix is built when it is read. In training the codebook has moved when this
        returns.
        """
        _checks.vectors(inputs, self.embedding_dim, 1, name="inputs")
        return _returned(super().forward(inputs), self.num_embeddings)

    @property
    def _embedding(self) -> nn.Embedding:
        """The present codes, in the memory of the codebook."""
        return nn.Embedding(self.num_embeddings, self.embedding_dim, _weight=self.codebook)

    @property
    def _codes(self) -> Tensor:
        return self.codebook.detach()  # a gradient of zeros would let an optimizer move them

    @torch.no_grad()
    def _advance(self, steps_due: int) -> None:
        moves = self.clock.clone()
        super()._advance(steps_due)
        size, epsilon = self.cluster_size, self.update.epsilon
        total = fixed_sum(size)
        smoothed = (size + epsilon) / (total + self.num_embeddings * epsilon) * total
        size.copy_(torch.where(self.clock > moves, smoothed, size))


def _returned(out: VQOutput, num_codes: int) -> Returned:
    encodings = one_hot(out.indices.reshape(-1), num_codes, torch.get_default_dtype())
    return out.loss, out.quantized.contiguous(), out.usage.perplexity, encodings
