"""Modules: state and options, no maths."""

from vqkernels.nn.residual_vq import ResidualVQ
from vqkernels.nn.vector_quantizer import VectorQuantizer

__all__ = ["ResidualVQ", "VectorQuantizer"]
