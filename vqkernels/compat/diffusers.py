"""diffusers: the quantizer of ``VQModel`` (``diffusers/models/autoencoders/vae.py``)."""

from __future__ import annotations

from vqkernels.compat._vqgan import GradientQuantizer


class VectorQuantizer(GradientQuantizer):
    replaces = ("diffusers.models.autoencoders.vae.VectorQuantizer",)
