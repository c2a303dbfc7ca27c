"""Modules: state and options, no maths."""

from vqkernels.nn.fsq import FSQ
from vqkernels.nn.grouped_vq import GroupedVQ
from vqkernels.nn.gumbel_vq import GumbelVQ
from vqkernels.nn.ibq import IBQ
from vqkernels.nn.lfq import LFQ
from vqkernels.nn.projected import Projected
from vqkernels.nn.random_projection import RandomProjectionVQ
from vqkernels.nn.residual_vq import ResidualVQ
from vqkernels.nn.sharded_codebook import ShardedCodebook
from vqkernels.nn.sim_vq import SimVQ
from vqkernels.nn.vector_quantizer import VectorQuantizer

__all__ = [
    "FSQ",
    "IBQ",
    "LFQ",
    "GroupedVQ",
    "GumbelVQ",
    "Projected",
    "RandomProjectionVQ",
    "ResidualVQ",
    "ShardedCodebook",
    "SimVQ",
    "VectorQuantizer",
]
