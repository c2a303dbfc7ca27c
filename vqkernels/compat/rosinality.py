"""rosinality/vq-vae-2-pytorch: its quantizer (``vqvae.py``)."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import torch
from torch import Tensor

from vqkernels import _checks, functional
from vqkernels.compat._codebook import PeerCodebook
from vqkernels.compat._embedding_quantizer import probe_rows
from vqkernels.compat._peer import Peer
from vqkernels.options import EMA


class Quantize(Peer, PeerCodebook):
    """The codebook is moved by averages (van den Oord et al. 2017, arXiv 1711.00937, appendix A).

    Cluster sizes start at 0, so that the first step takes a code that no row has chosen to
    ``embed_avg`` over almost nothing, and it is rarely seen again. Where torch.distributed runs,
    the ranks learn one codebook.

    Args:
        dim: D, length of a code.
        n_embed: K, number of codes.
        decay: of the averages, in [0, 1).
        eps: smoothing of the cluster sizes, in rows.
    """

    replaces = ("vqvae.Quantize",)
    copied = True
    codebook_key = "embed"
    codebook_axes = (-1, -2)
    their_names = {  # noqa: RUF012
        "codebook": "embed",
        "cluster_size": "cluster_size",
        "embed_sum": "embed_avg",
    }

    cluster_size: Tensor
    dim = property(attrgetter("embedding_dim"))
    n_embed = property(attrgetter("num_embeddings"))
    decay = property(attrgetter("update.decay"))
    eps = property(attrgetter("update.epsilon"))

    def __init__(self, dim: int, n_embed: int, decay: float = 0.99, eps: float = 1e-5) -> None:
        _checks.integer_at_least("dim", dim, 1)
        _checks.integer_at_least("n_embed", n_embed, 1)
        super().__init__(
            n_embed,
            dim,
            commitment_weight=1.0,
            update=EMA(decay=decay, epsilon=eps),
            init=torch.randn(dim, n_embed, dtype=torch.float32).T.contiguous(),
            revive=None,
            channel_dim=-1,
        )
        self.cluster_size.zero_()

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        return {
            "dim": theirs.dim,
            "n_embed": theirs.n_embed,
            "decay": theirs.decay,
            "eps": theirs.eps,
        }

    def probe_input(self) -> Tensor:
        return probe_rows(self.codebook)

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        """input (..., D) to (quantized, mean squared error, indices (...)).

        The error is differentiable in the input alone. In training the codebook has moved when
        this returns.
        """
        _checks.vectors(input, self.embedding_dim, -1, name="input")
        out = super().forward(input)
        return out.quantized, out.loss, out.indices

    def embed_code(self, embed_id: Tensor) -> Tensor:
        """The codes of indices, (*indices, D)."""
        return functional.lookup(embed_id, self.codebook, channel_dim=-1)

    def _to_theirs(self, name: str, tensor: Tensor) -> Tensor:
        return tensor if name == "cluster_size" else tensor.T

    def _to_ours(self, name: str, tensor: Tensor) -> Tensor:
        return tensor if name == "cluster_size" else tensor.T
