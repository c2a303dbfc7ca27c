"""The classes of vector-quantize-pytorch (lucidrains) that are served, at version 1.32."""

from vqkernels.compat.vector_quantize_pytorch.lfq import LFQ
from vqkernels.compat.vector_quantize_pytorch.residual_lfq import GroupedResidualLFQ, ResidualLFQ

__all__ = [
    "LFQ",
    "GroupedResidualLFQ",
    "ResidualLFQ",
]
