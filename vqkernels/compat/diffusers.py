"""diffusers: the quantizer of ``VQModel`` (``diffusers/models/autoencoders/vae.py``)."""

from __future__ import annotations

import os
from typing import Any

from vqkernels.compat._vqgan import RemappingQuantizer


class VectorQuantizer(RemappingQuantizer):
    """As theirs; see ``RemappingQuantizer``. ``vq_embed_dim`` is D, the length of a code."""

    replaces = ("diffusers.models.autoencoders.vae.VectorQuantizer",)

    def __init__(
        self,
        n_e: int,
        vq_embed_dim: int,
        beta: float,
        remap: str | os.PathLike[str] | None = None,
        unknown_index: str | int = "random",
        sane_index_shape: bool = False,
        legacy: bool = True,
    ) -> None:
        super().__init__(n_e, vq_embed_dim, beta, remap, unknown_index, sane_index_shape, legacy)
        self.vq_embed_dim = vq_embed_dim

    @classmethod
    def arguments_of(cls, theirs: Any) -> dict[str, Any]:
        return {"vq_embed_dim": theirs.vq_embed_dim, **super().arguments_of(theirs)}
