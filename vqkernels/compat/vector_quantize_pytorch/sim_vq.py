"""SimVQ: frozen codes seen through a map that is learnt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from vqkernels import functional
from vqkernels.compat._peer import Peer


class SimVQ(Peer):
    """``vector_quantize_pytorch.SimVQ``: same calls, returns and state_dict.

    With q the nearest of ``code_transform(frozen_codebook)`` (Zhu et al. 2024, arXiv 2411.02038)::

        loss = commitment_weight * (mse(sg(x), q)
                                    + input_to_quantize_commit_loss_weight * mse(x, sg(q)))

    The gradient of ``quantized`` reaches x through the rotation that takes x to q, or straight.
    """

    replaces = ("vector_quantize_pytorch.sim_vq.SimVQ",)
    codebook_key: ClassVar[str] = "frozen_codebook"
    settings: ClassVar[tuple[str, ...]] = (
        "commitment_weight",
        "input_to_quantize_commit_loss_weight",
        "rotation_trick",
    )

    frozen_codebook: Tensor

    def __init__(
        self,
        dim: int,
        codebook_size: int,
        codebook_transform: nn.Module | None = None,
        init_fn: Callable[[Tensor], Tensor] = lambda codes: codes,
        channel_first: bool = False,
        rotation_trick: bool = True,
        input_to_quantize_commit_loss_weight: float = 0.25,
        commitment_weight: float = 1.0,
        frozen_codebook_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.codebook_size = codebook_size
        self.channel_first = channel_first
        width = dim if frozen_codebook_dim is None else frozen_codebook_dim
        codebook = init_fn(torch.randn(codebook_size, width) * width**-0.5)
        if codebook_transform is None:
            codebook_transform = nn.Linear(width, dim, bias=False)
        self.code_transform = codebook_transform
        self.register_buffer("frozen_codebook", codebook)
        self.rotation_trick = rotation_trick
        self.input_to_quantize_commit_loss_weight = input_to_quantize_commit_loss_weight
        self.commitment_weight = commitment_weight

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        transform = theirs.code_transform
        default = type(transform) is nn.Linear and transform.bias is None
        with torch.no_grad():
            dim = theirs.codebook.shape[-1]
        return {
            "dim": dim,
            "codebook_size": theirs.codebook_size,
            "codebook_transform": None if default else transform,
            "channel_first": theirs.channel_first,
            "rotation_trick": theirs.rotation_trick,
            "input_to_quantize_commit_loss_weight": theirs.input_to_quantize_commit_loss_weight,
            "commitment_weight": theirs.commitment_weight,
            "frozen_codebook_dim": theirs.frozen_codebook.shape[-1],
        }

    @property
    def codebook(self) -> Tensor:
        """(K, D): the transformed codes."""
        codes: Tensor = self.code_transform(self.frozen_codebook)
        return codes

    def indices_to_codes(self, indices: Tensor) -> Tensor:
        """The codes; channels last, or with ``channel_first`` after the batch."""
        codes: Tensor = self.code_transform(self.frozen_codebook[indices])
        return codes.movedim(-1, 1) if self.channel_first else codes

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(quantized, indices, loss) of (B, ..., D), or with ``channel_first`` (B, D, ...)."""
        out = functional.vector_quantize(
            x,
            self.codebook,
            commitment_weight=self.commitment_weight * self.input_to_quantize_commit_loss_weight,
            codebook_weight=self.commitment_weight,
            estimator="rotation" if self.rotation_trick else "straight_through",
            channel_dim=1 if self.channel_first else -1,
        )
        return out.quantized, out.indices, out.loss.to(x.dtype)
