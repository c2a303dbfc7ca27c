"""The quantizer of VQGAN, which taming-transformers and diffusers have in common."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from vqkernels import functional
from vqkernels.compat._peer import Peer, unserved

Returned = tuple[Tensor, Tensor, tuple[Tensor | None, Tensor | None, Tensor]]


class GradientQuantizer(Peer):
    """Nearest code by squared distance, straight-through, codebook trained by gradient.

    Esser et al. 2021, arXiv 2012.09841, equations 2 and 4. With ``legacy`` beta is on the codebook
    term, where a known slip put it, and without on the commitment term::

        legacy:      loss = mse(sg(q), z) + beta * mse(q, sg(z))
        not legacy:  loss = beta * mse(sg(q), z) + mse(q, sg(z))
    """

    embedding: nn.Embedding

    def __init__(
        self,
        n_e: int,
        vq_embed_dim: int,
        beta: float,
        remap: str | None = None,
        unknown_index: str = "random",
        sane_index_shape: bool = False,
        legacy: bool = True,
    ) -> None:
        super().__init__()
        unserved(self, remap=(remap, None))
        self.n_e = n_e
        self.vq_embed_dim = vq_embed_dim
        self.beta = beta
        self.legacy = legacy
        self.embedding = nn.Embedding(n_e, vq_embed_dim)
        nn.init.uniform_(self.embedding.weight, -1.0 / n_e, 1.0 / n_e)
        self.remap = remap
        self.re_embed = n_e
        self.sane_index_shape = sane_index_shape

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        return {
            "n_e": theirs.n_e,
            "vq_embed_dim": theirs.vq_embed_dim,
            "beta": theirs.beta,
            "remap": theirs.remap,
            "unknown_index": getattr(theirs, "unknown_index", "random"),
            "sane_index_shape": theirs.sane_index_shape,
            "legacy": theirs.legacy,
        }

    def probe_input(self) -> Tensor:
        codes = self.embedding.weight.detach()[: min(self.n_e, 8)]
        return codes.T.reshape(1, self.vq_embed_dim, 1, len(codes))

    def forward(self, z: Tensor) -> Returned:
        commitment, codebook = (1.0, self.beta) if self.legacy else (self.beta, 1.0)
        out = functional.vector_quantize(
            z,
            self.embedding.weight,
            commitment_weight=commitment,
            codebook_weight=codebook,
        )
        indices = out.indices if self.sane_index_shape else out.indices.reshape(-1)
        return out.quantized.contiguous(), out.loss, (None, None, indices)

    def get_codebook_entry(self, indices: Tensor, shape: tuple[int, ...] | None) -> Tensor:
        codes: Tensor = self.embedding(indices)
        if shape is None:
            return codes
        return codes.view(shape).permute(0, 3, 1, 2).contiguous()
