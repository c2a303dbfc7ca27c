"""The classes of vector-quantize-pytorch (lucidrains) that are served, at version 1.32."""

from vqkernels.compat.vector_quantize_pytorch.fsq import FSQ
from vqkernels.compat.vector_quantize_pytorch.grouped_residual_vq import GroupedResidualVQ
from vqkernels.compat.vector_quantize_pytorch.lfq import LFQ
from vqkernels.compat.vector_quantize_pytorch.random_projection_quantizer import (
    RandomProjectionQuantizer,
)
from vqkernels.compat.vector_quantize_pytorch.residual_fsq import GroupedResidualFSQ, ResidualFSQ
from vqkernels.compat.vector_quantize_pytorch.residual_lfq import GroupedResidualLFQ, ResidualLFQ
from vqkernels.compat.vector_quantize_pytorch.residual_sim_vq import ResidualSimVQ
from vqkernels.compat.vector_quantize_pytorch.residual_vq import ResidualVQ
from vqkernels.compat.vector_quantize_pytorch.sim_vq import SimVQ
from vqkernels.compat.vector_quantize_pytorch.vector_quantize import LossBreakdown, VectorQuantize

__all__ = [
    "FSQ",
    "LFQ",
    "GroupedResidualFSQ",
    "GroupedResidualLFQ",
    "GroupedResidualVQ",
    "LossBreakdown",
    "RandomProjectionQuantizer",
    "ResidualFSQ",
    "ResidualLFQ",
    "ResidualSimVQ",
    "ResidualVQ",
    "SimVQ",
    "VectorQuantize",
]
