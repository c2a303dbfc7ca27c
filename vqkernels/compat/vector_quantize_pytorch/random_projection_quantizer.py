"""RandomProjectionQuantizer: labels from a random projection and random codes."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vqkernels import ops
from vqkernels._index_gradient import largest_product
from vqkernels._soft import code_cross_entropy
from vqkernels.compat._peer import Peer, refuse

# Options of their inner VectorQuantize that change nothing in evaluation, where it always is.
_WITHOUT_EFFECT = frozenset(
    (
        *("decay", "eps", "commitment_weight", "threshold_ema_dead_code", "kmeans_iters"),
        *("sync_kmeans", "sync_codebook", "ema_update", "manual_ema_update", "freeze_codebook"),
        *("stochastic_sample_codes", "sample_codebook_temp", "rotation_trick", "straight_through"),
        *("route_gradients_to_input", "return_zeros_for_masked_padding"),
    )
)


class RandomProjectionQuantizer(Peer):
    """``vector_quantize_pytorch.RandomProjectionQuantizer``: same calls, returns and state_dict.

    BEST-RQ (Chiu et al. 2022, arXiv 2202.01855): per codebook the code of the largest cosine with
    a random projection of the normalised x, frozen both. With several codebooks their quantizer
    has a linear layer in front of its heads, drawn like any other and not in the paper; it is here
    too, because checkpoints hold it and labels depend on it.

    Indices are the exact largest dot products with the stored codes.
    """

    replaces = ("vector_quantize_pytorch.random_projection_quantizer.RandomProjectionQuantizer",)
    codebook_key: ClassVar[str] = "_codebook.embed"

    rand_projs: Tensor

    def __init__(
        self,
        *,
        dim: int,
        codebook_size: int,
        codebook_dim: int,
        num_codebooks: int = 1,
        norm: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        for name, value in kwargs.items():
            if name not in _WITHOUT_EFFECT:
                refuse(self, f"{name}={value!r}")
        self.num_codebooks = num_codebooks
        projections = torch.empty(num_codebooks, dim, codebook_dim)
        self.register_buffer("rand_projs", nn.init.xavier_normal_(projections))
        self.norm = nn.LayerNorm(dim, elementwise_affine=False) if norm else nn.Identity()
        self.vq = _Heads(num_codebooks, codebook_size, codebook_dim * num_codebooks)

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        refused = {"kmeans_init": True} if not theirs.vq._codebook.initted else {}
        return {
            "dim": theirs.rand_projs.shape[1],
            "codebook_size": theirs.vq.codebook_size,
            "codebook_dim": theirs.rand_projs.shape[2],
            "num_codebooks": theirs.num_codebooks,
            "norm": isinstance(theirs.norm, nn.LayerNorm),
            **refused,
        }

    def forward(self, x: Tensor, indices: Tensor | None = None) -> Tensor:
        """Labels of x (B, N, D): (B, N), or (B, N, H) of H > 1 codebooks.

        With ``indices`` of that shape: the cross-entropy of softmax(cosines) to them, where -1
        counts nowhere.
        """
        projected = torch.einsum("bnd,hde->bnhe", self.norm(x), self.rand_projs)
        heads = self.vq(projected.flatten(-2))
        codebooks = self.vq._codebook.embed
        if indices is None:
            parts = zip(heads, codebooks, strict=True)
            found = [largest_product(head, codes, None, 2, None) for head, codes in parts]
            return found[0] if self.num_codebooks == 1 else torch.stack(found, dim=-1)
        targets = [indices] if self.num_codebooks == 1 else list(indices.unbind(-1))
        total = x.new_zeros(())
        for head, codes, target in zip(heads, codebooks, targets, strict=True):
            mean = code_cross_entropy(head, codes, target, metric="cosine", channel_dim=2)
            total = total + mean * (target != -1).sum()
        return total / (indices != -1).sum()


class _Heads(nn.Module):
    """What is left of their quantizer: the layer in front of the heads, and the codes."""

    def __init__(self, heads: int, codebook_size: int, dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.codebook_size = codebook_size
        self.project_in: nn.Module = nn.Identity()
        self.project_out: nn.Module = nn.Identity()
        if heads > 1:
            self.project_in = nn.Linear(dim, dim * heads)
            self.project_out = nn.Linear(dim * heads, dim)
        self._codebook = _Codes(heads, codebook_size, dim)

    def forward(self, x: Tensor) -> list[Tensor]:
        """What each head labels, of x (B, N, D)."""
        parts: tuple[Tensor, ...] = self.project_in(x).chunk(self.heads, dim=-1)
        return list(parts)

    @property
    def codebook(self) -> Tensor:
        """(H, K, D)."""
        return self._codebook.embed


class _Codes(nn.Module):
    embed: Tensor

    def __init__(self, heads: int, codebook_size: int, dim: int) -> None:
        super().__init__()
        embed = nn.init.kaiming_uniform_(torch.empty(heads, codebook_size, dim))
        embed = torch.stack([ops.normalize_codes(codes)[0] for codes in embed])
        self.register_buffer("initted", torch.tensor(True))
        self.register_buffer("cluster_size", torch.ones(heads, codebook_size))
        self.register_buffer("embed_avg", embed.clone())
        self.register_buffer("embed", embed)
