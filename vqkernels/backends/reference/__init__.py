"""The specification in plain PyTorch: any device, any float dtype, slow on purpose.

Every other backend is tested against these functions. The search evaluates the canonical score F
for every pair, in blocks, so that no allocation has both N and K as factors:

* l2: ``F = sum_i t_i * t_i`` with ``t_i = double(x_i) - double(c_i)``, i ascending, multiply and
  add rounded separately (float64, no fused multiply-add); the smallest F wins.
* cosine: ``F = sum_i double(x_i) * double(c_i)``, i ascending; the largest F wins; the codebook
  has been normalised by the caller, x is used as it is.

Ties in F go to the lowest index. A row or a code with a NaN or an infinity never takes part: such
a row gets index 0 and a NaN distance, such a code is never chosen.

Statistics and losses accumulate in float64 and are rounded once, to ``wide``: float32, or float64
when x or the codebook is float64.
"""

from __future__ import annotations

from vqkernels.backends.reference.bit_assign import bit_assign, bit_assign_backward
from vqkernels.backends.reference.bit_codes import bit_codes
from vqkernels.backends.reference.code_sums import code_sums
from vqkernels.backends.reference.draw_code import draw_code
from vqkernels.backends.reference.fsq import fsq, fsq_backward, fsq_lookup
from vqkernels.backends.reference.lookup import lookup
from vqkernels.backends.reference.nearest_code import nearest_code, score_of
from vqkernels.backends.reference.nearest_codes import nearest_codes
from vqkernels.backends.reference.residual import residual
from vqkernels.backends.reference.residual_backward import residual_backward
from vqkernels.backends.reference.sample_codes import sample_codes
from vqkernels.backends.reference.soft_assign import soft_assign
from vqkernels.backends.reference.soft_assign_backward import soft_assign_backward
from vqkernels.backends.reference.soft_lookup import soft_lookup
from vqkernels.backends.reference.soft_lookup_backward import soft_lookup_backward
from vqkernels.backends.reference.vq_backward import vq_backward
from vqkernels.backends.reference.vq_forward import vq_forward

__all__ = [
    "bit_assign",
    "bit_assign_backward",
    "bit_codes",
    "code_sums",
    "draw_code",
    "fsq",
    "fsq_backward",
    "fsq_lookup",
    "lookup",
    "nearest_code",
    "nearest_codes",
    "residual",
    "residual_backward",
    "sample_codes",
    "score_of",
    "soft_assign",
    "soft_assign_backward",
    "soft_lookup",
    "soft_lookup_backward",
    "vq_backward",
    "vq_forward",
]
