"""Modules: state and options, no maths."""

from vqkernels.nn.vector_quantizer import VectorQuantizer

__all__ = ["VectorQuantizer"]
