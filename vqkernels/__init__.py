"""Exact fused vector quantization for PyTorch.

``vq.nn.VectorQuantizer`` is the module, ``vq.vector_quantize`` the function, and
``vq.nearest_code`` the search alone. ``python -m vqkernels`` checks the installation.
"""

from vqkernels import nn
from vqkernels._explain import Explanation, explain
from vqkernels._prepare import PreparedCodebook, prepare
from vqkernels._residual_quantize import residual_quantize
from vqkernels._version import __version__
from vqkernels.functional import (
    code_sums,
    ema_update_,
    lookup,
    nearest_code,
    vector_quantize,
)
from vqkernels.options import EMA, Gradient, LevelDropout, Revive
from vqkernels.outputs import CodeSums, CodeUsage, NearestCode, VQOutput

__all__ = [
    "EMA",
    "CodeSums",
    "CodeUsage",
    "Explanation",
    "Gradient",
    "LevelDropout",
    "NearestCode",
    "PreparedCodebook",
    "Revive",
    "VQOutput",
    "__version__",
    "code_sums",
    "ema_update_",
    "explain",
    "lookup",
    "nearest_code",
    "nn",
    "prepare",
    "residual_quantize",
    "vector_quantize",
]
