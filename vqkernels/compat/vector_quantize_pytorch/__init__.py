"""The classes of vector-quantize-pytorch (lucidrains) that are served, at version 1.32."""

from vqkernels.compat.vector_quantize_pytorch.fsq import FSQ
from vqkernels.compat.vector_quantize_pytorch.residual_fsq import GroupedResidualFSQ, ResidualFSQ

__all__ = [
    "FSQ",
    "GroupedResidualFSQ",
    "ResidualFSQ",
]
