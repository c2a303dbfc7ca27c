"""Modules: state and options, no maths."""

from vqkernels.nn.fsq import FSQ
from vqkernels.nn.grouped_vq import GroupedVQ
from vqkernels.nn.lfq import LFQ
from vqkernels.nn.projected import Projected
from vqkernels.nn.residual_vq import ResidualVQ
from vqkernels.nn.sharded_codebook import ShardedCodebook
from vqkernels.nn.vector_quantizer import VectorQuantizer

__all__ = [
    "FSQ",
    "LFQ",
    "GroupedVQ",
    "Projected",
    "ResidualVQ",
    "ShardedCodebook",
    "VectorQuantizer",
]
