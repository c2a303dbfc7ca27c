"""taming-transformers: the quantizers of VQGAN (``taming/modules/vqvae/quantize.py``)."""

from __future__ import annotations

import os
from operator import attrgetter
from typing import Any

from torch import Tensor

from vqkernels import _checks, functional
from vqkernels.compat._codebook import PeerCodebook
from vqkernels.compat._embedding_quantizer import probe_images
from vqkernels.compat._gumbel_quantize import GumbelQuantize
from vqkernels.compat._one_hot import one_hot
from vqkernels.compat._peer import Peer, unserved
from vqkernels.compat._vqgan import BetaQuantizer, RemappingQuantizer, Returned
from vqkernels.options import EMA
from vqkernels.outputs import VQOutput

__all__ = [
    "EMAVectorQuantizer",
    "EmbeddingEMA",
    "GumbelQuantize",
    "VectorQuantizer",
    "VectorQuantizer2",
]

_MODULE = "taming.modules.vqvae.quantize"


class VectorQuantizer(BetaQuantizer):
    """The first form, whose loss is always the ``legacy`` one.

    Args:
        n_e: K, number of codes.
        e_dim: D, length of a code.
        beta: weight of the codebook term.
    """

    replaces = (f"{_MODULE}.VectorQuantizer",)
    copied = True

    def __init__(self, n_e: int, e_dim: int, beta: float) -> None:
        super().__init__(n_e, e_dim, beta)
        self.e_dim = e_dim

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        return {"n_e": theirs.n_e, "e_dim": theirs.e_dim, "beta": theirs.beta}

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
        """z (B, D, H, W) to (quantized, loss, (perplexity, one-hot (N, K), indices (N, 1))).

        N = B*H*W. The one-hot matrix is built when it is read.
        """
        out = self._quantize(z, *self._weights)
        indices = out.indices.reshape(-1)
        perplexity = out.usage.perplexity.to(z.dtype)
        return (
            out.quantized,
            out.loss,
            (perplexity, one_hot(indices, self.n_e, z.dtype), indices[:, None]),
        )


class VectorQuantizer2(RemappingQuantizer):
    """As theirs; see ``RemappingQuantizer``. ``e_dim`` is D, the length of a code."""

    replaces = (f"{_MODULE}.VectorQuantizer2",)
    copied = True

    def __init__(
        self,
        n_e: int,
        e_dim: int,
        beta: float,
        remap: str | os.PathLike[str] | None = None,
        unknown_index: str | int = "random",
        sane_index_shape: bool = False,
        legacy: bool = True,
    ) -> None:
        super().__init__(n_e, e_dim, beta, remap, unknown_index, sane_index_shape, legacy)
        self.e_dim = e_dim

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        return {"e_dim": theirs.e_dim, **super().arguments_of(theirs)}

    def forward(
        self,
        z: Tensor,
        temp: float | None = None,
        rescale_logits: bool = False,
        return_logits: bool = False,
    ) -> Returned:
        """z (B, D, H, W) to (quantized, loss, (None, None, indices)).

        ``quantized`` has the value of the code, exactly, and the gradient of z. The other
        arguments are there because ``GumbelQuantize`` has them, and have one value each.
        """
        if temp is not None and temp != 1.0:
            raise ValueError(f"temp must be None or 1.0, got {temp!r}")
        for name, value in (("rescale_logits", rescale_logits), ("return_logits", return_logits)):
            if value:
                raise ValueError(f"{name} must be False, got {value!r}")
        return super().forward(z)


class EmbeddingEMA(PeerCodebook):
    """The codebook of ``EMAVectorQuantizer``, with its averages.

    Args:
        num_tokens: K, number of codes.
        codebook_dim: D, length of a code.
        decay: of the averages, in [0, 1).
        eps: smoothing of the cluster sizes, in rows.
    """

    their_names = {  # noqa: RUF012
        "codebook": "weight",
        "cluster_size": "cluster_size",
        "embed_sum": "embed_avg",
    }

    cluster_size: Tensor
    decay = property(attrgetter("update.decay"))
    eps = property(attrgetter("update.epsilon"))

    def __init__(
        self, num_tokens: int, codebook_dim: int, decay: float = 0.99, eps: float = 1e-5
    ) -> None:
        averages = EMA(decay=decay, epsilon=eps)
        super().__init__(num_tokens, codebook_dim, update=averages, init="normal", revive=None)
        self.cluster_size.zero_()

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "update" and isinstance(value, bool):
            raise NotImplementedError(
                f"EmbeddingEMA: update={value} is not served by vqkernels; eval() stops them"
            )
        super().__setattr__(name, value)

    def forward(self, embed_id: Tensor) -> Tensor:  # type: ignore[override]
        """The codes of indices, (*indices, D)."""
        return functional.lookup(embed_id, self.codebook, channel_dim=-1)

    def quantize(self, z: Tensor, beta: float) -> VQOutput:
        """A step in training or evaluation, the loss being ``beta * mse(z, sg(q))``."""
        self.commitment_weight = beta
        return PeerCodebook.forward(self, z)


class EMAVectorQuantizer(Peer):
    """The codebook is moved by averages (van den Oord et al. 2017, arXiv 1711.00937, appendix A).

    Theirs cannot be made: its constructor reads names that do not exist. This is what it does with
    ``n_embed`` and ``embedding_dim`` in their places.

    Args:
        n_embed: K, number of codes.
        embedding_dim: D, length of a code.
        beta: weight of ``mse(z, sg(q))``, which is all of the loss.
        decay: of the averages, in [0, 1).
        eps: smoothing of the cluster sizes, in rows.
        remap, unknown_index: not served; theirs accepts a ``remap`` and never reads it.
    """

    replaces = (f"{_MODULE}.EMAVectorQuantizer",)
    copied = True
    settings = ("beta",)

    def __init__(
        self,
        n_embed: int,
        embedding_dim: int,
        beta: float,
        decay: float = 0.99,
        eps: float = 1e-5,
        remap: str | None = None,
        unknown_index: str | int = "random",
    ) -> None:
        super().__init__()
        unserved(self, remap=(remap, None))
        _checks.at_least("beta", beta, 0.0)
        self.codebook_dim = embedding_dim
        self.num_tokens = n_embed
        self.beta = beta
        self.embedding = EmbeddingEMA(n_embed, embedding_dim, decay, eps)
        self.remap = remap
        self.re_embed = n_embed

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        unserved(theirs, update=(theirs.embedding.update, True))
        return {
            "n_embed": theirs.num_tokens,
            "embedding_dim": theirs.codebook_dim,
            "beta": theirs.beta,
            "decay": theirs.embedding.decay,
            "eps": theirs.embedding.eps,
            "remap": theirs.remap,
        }

    def probe_input(self) -> Tensor:
        return probe_images(self.embedding.codebook)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
        """z (B, D, H, W) to (quantized, loss, (perplexity, one-hot (N, K), indices (N,))).

        N = B*H*W. The one-hot matrix is built when it is read. In training the codebook has moved
        when this returns.
        """
        _checks.vectors(z, self.codebook_dim, 1, name="z")
        out = self.embedding.quantize(z, self.beta)
        indices = out.indices.reshape(-1)
        encodings = one_hot(indices, self.num_tokens, z.dtype)
        return out.quantized, out.loss, (out.usage.perplexity.to(z.dtype), encodings, indices)
