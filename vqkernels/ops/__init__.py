"""Op contracts: schema, fake, backend choice and autograd. Importing this registers them all."""

from vqkernels.ops._owners import register_owner
from vqkernels.ops._recompute import count_both
from vqkernels.ops.advance import advance_
from vqkernels.ops.all_reduce import all_reduce_
from vqkernels.ops.bit_assign import BitAssign, bit_assign, bit_assign_backward
from vqkernels.ops.bit_codes import bit_codes
from vqkernels.ops.code_sums import code_sums
from vqkernels.ops.draw_code import draw_code
from vqkernels.ops.draw_levels import draw_levels
from vqkernels.ops.ema_update import ema_update_
from vqkernels.ops.fsq import FiniteScalarQuantize, fsq, fsq_backward, fsq_lookup
from vqkernels.ops.gather_rows import gather_rows
from vqkernels.ops.index_gradient import IndexGradient
from vqkernels.ops.kmeans_step import kmeans_finish_, kmeans_start_, kmeans_step_
from vqkernels.ops.lookup import Lookup, lookup, lookup_backward
from vqkernels.ops.nearest_code import nearest_code, visited_share
from vqkernels.ops.nearest_codes import nearest_codes
from vqkernels.ops.nearest_shard import nearest_shard
from vqkernels.ops.normalize_codes import NormalizeCodes, normalize_codes
from vqkernels.ops.observe import observe_
from vqkernels.ops.partition import is_worn, partition
from vqkernels.ops.prepare import prepare
from vqkernels.ops.replicate import replicate_
from vqkernels.ops.residual import residual
from vqkernels.ops.residual_backward import residual_backward
from vqkernels.ops.residual_quantize import ResidualQuantize
from vqkernels.ops.sample_codes import sample_codes
from vqkernels.ops.sample_residuals import sample_residuals
from vqkernels.ops.sample_rows import sample_rows
from vqkernels.ops.shard_rows import shard_rows
from vqkernels.ops.soft_assign import SoftAssign, snapshot, soft_assign
from vqkernels.ops.soft_assign_backward import soft_assign_backward
from vqkernels.ops.soft_lookup import SoftLookup, soft_lookup
from vqkernels.ops.soft_lookup_backward import soft_lookup_backward
from vqkernels.ops.tick import tick_
from vqkernels.ops.unit_rows import UnitRows
from vqkernels.ops.vector_quantize import VectorQuantize
from vqkernels.ops.vq_assigned import vq_assigned
from vqkernels.ops.vq_backward import vq_backward
from vqkernels.ops.vq_forward import vq_forward

__all__ = [
    "BitAssign",
    "FiniteScalarQuantize",
    "IndexGradient",
    "Lookup",
    "NormalizeCodes",
    "ResidualQuantize",
    "SoftAssign",
    "SoftLookup",
    "UnitRows",
    "VectorQuantize",
    "advance_",
    "all_reduce_",
    "bit_assign",
    "bit_assign_backward",
    "bit_codes",
    "code_sums",
    "count_both",
    "draw_code",
    "draw_levels",
    "ema_update_",
    "fsq",
    "fsq_backward",
    "fsq_lookup",
    "gather_rows",
    "is_worn",
    "kmeans_finish_",
    "kmeans_start_",
    "kmeans_step_",
    "lookup",
    "lookup_backward",
    "nearest_code",
    "nearest_codes",
    "nearest_shard",
    "normalize_codes",
    "observe_",
    "partition",
    "prepare",
    "register_owner",
    "replicate_",
    "residual",
    "residual_backward",
    "sample_codes",
    "sample_residuals",
    "sample_rows",
    "shard_rows",
    "snapshot",
    "soft_assign",
    "soft_assign_backward",
    "soft_lookup",
    "soft_lookup_backward",
    "tick_",
    "visited_share",
    "vq_assigned",
    "vq_backward",
    "vq_forward",
]
