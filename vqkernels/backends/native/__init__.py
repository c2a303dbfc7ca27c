"""Launches csrc: pointers, sizes and strides in, no tensor knowledge there.

The caller has validated shapes, dtypes and devices. Codebooks are made contiguous float32 here,
which is exact for float16 and bfloat16 and costs K*D; x is never copied.
"""

from __future__ import annotations

from vqkernels.backends.native._core import build_info, cuda_missing, missing
from vqkernels.backends.native.advance import advance
from vqkernels.backends.native.code_sums import code_sums
from vqkernels.backends.native.fsq import fsq, fsq_backward, fsq_lookup
from vqkernels.backends.native.lookup import lookup
from vqkernels.backends.native.nearest_code import nearest_code
from vqkernels.backends.native.nearest_codes import nearest_codes
from vqkernels.backends.native.normalize_codes import normalize_codes
from vqkernels.backends.native.observe import observe
from vqkernels.backends.native.prepare import (
    is_worn,
    partition,
    partition_bytes,
    prepare,
    prepared_bytes,
    suitable_cells,
    visited_share,
)
from vqkernels.backends.native.residual import residual
from vqkernels.backends.native.residual_backward import residual_backward
from vqkernels.backends.native.sample_codes import sample_codes
from vqkernels.backends.native.sample_rows import sample_rows
from vqkernels.backends.native.soft_assign import soft_assign
from vqkernels.backends.native.soft_assign_backward import soft_assign_backward
from vqkernels.backends.native.vq_assigned import vq_assigned
from vqkernels.backends.native.vq_backward import vq_backward
from vqkernels.backends.native.vq_forward import vq_forward

__all__ = [
    "advance",
    "build_info",
    "code_sums",
    "cuda_missing",
    "fsq",
    "fsq_backward",
    "fsq_lookup",
    "is_worn",
    "lookup",
    "missing",
    "nearest_code",
    "nearest_codes",
    "normalize_codes",
    "observe",
    "partition",
    "partition_bytes",
    "prepare",
    "prepared_bytes",
    "residual",
    "residual_backward",
    "sample_codes",
    "sample_rows",
    "soft_assign",
    "soft_assign_backward",
    "suitable_cells",
    "visited_share",
    "vq_assigned",
    "vq_backward",
    "vq_forward",
]
