"""GroupedResidualVQ: residual quantizers side by side, each on its part of the channels."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from vqkernels.compat._peer import refuse
from vqkernels.compat.vector_quantize_pytorch._groups import Groups
from vqkernels.compat.vector_quantize_pytorch._layout import Layout
from vqkernels.compat.vector_quantize_pytorch._learning import Learnt, learn
from vqkernels.compat.vector_quantize_pytorch.residual_vq import ResidualVQ


class GroupedResidualVQ(Groups[ResidualVQ]):
    """``vector_quantize_pytorch.GroupedResidualVQ``: same calls, returns and state_dict.

    ``groups`` residual quantizers on equal parts of the channels (Yang et al. 2023, arXiv
    2305.02765). What all of them learn is added up over the ranks by one collective per forward
    (one per group with ``shared_codebook``); they drop the same number of levels.

    Args:
        dim: channels of x, a multiple of ``groups``.
        groups: G, at least 1.
        accept_image_fmap, kwargs: of every ``ResidualVQ``.
    """

    replaces = ("vector_quantize_pytorch.residual_vq.GroupedResidualVQ",)
    codebook_key: ClassVar[str] = "_codebook.embed"

    def __init__(
        self, *, dim: int, groups: int = 1, accept_image_fmap: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(
            dim,
            groups,
            accept_image_fmap,
            lambda width: ResidualVQ(dim=width, accept_image_fmap=accept_image_fmap, **kwargs),
        )

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        of_each = [ResidualVQ.arguments_of(rvq) for rvq in theirs.rvqs]
        return {
            **of_each[0],
            **cls._groups_of(theirs),
            "kmeans_init": any(arguments["kmeans_init"] for arguments in of_each),
        }

    @property
    def split_dim(self) -> int:
        """The dimension of x that holds the channels."""
        return 1 if self._layout.channels_first else -1

    def forward(
        self,
        x: Tensor,
        indices: Tensor | None = None,
        return_all_codes: bool = False,
        sample_codebook_temp: float | None = None,
        freeze_codebook: bool = False,
        mask: Tensor | None = None,
    ) -> tuple[Any, ...]:
        """Quantizes every part of x.

        Args: as of ``ResidualVQ``; ``indices`` are not served.

        Returns:
            (quantized, indices int64 (G, *positions, Q), losses float32 (G, Q)[, all_codes, a
            tuple of G tensors (Q, *positions, D)]).
        """
        if indices is not None and len(indices):
            refuse(self, "forward(indices=...)")
        rows = self._layout.rows(x, self.dim)
        seed = self._seed(x.device)
        learnt: list[Learnt] = []
        parts = [
            rvq(
                self._layout.back(part, x),
                mask=mask,
                sample_codebook_temp=sample_codebook_temp,
                freeze_codebook=freeze_codebook,
                rand_quantize_dropout_fixed_seed=seed,
                _learnt=learnt,
            )
            for rvq, part in zip(self._parts, rows.chunk(self.groups, dim=-1), strict=True)
        ]
        if learnt:
            learn(learnt)
        quantized, found, losses = zip(*parts, strict=True)
        returned = (
            torch.cat(quantized, dim=self.split_dim),
            torch.stack(found),
            torch.stack(losses),
        )
        if not return_all_codes:
            return returned
        codes = zip(self._parts, found, strict=True)
        return (*returned, tuple(rvq.get_codes_from_indices(part) for rvq, part in codes))

    @property
    def _layout(self) -> Layout:
        return self._parts[0]._layout
