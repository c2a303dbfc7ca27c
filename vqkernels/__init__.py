"""Exact fused vector quantization for PyTorch.

``vq.nn.VectorQuantizer`` is the module, ``vq.vector_quantize`` the function, and
``vq.nearest_code`` the search alone. ``python -m vqkernels`` checks the installation.
"""

from vqkernels import compat, nn
from vqkernels._explain import Explanation, explain
from vqkernels._masks import mask_from_lengths
from vqkernels._nearest_codes import nearest_codes
from vqkernels._prepare import PreparedCodebook, prepare
from vqkernels._residual_quantize import residual_quantize
from vqkernels._soft import code_cross_entropy, code_entropy, code_orthogonality
from vqkernels._version import __version__
from vqkernels.compat import convert, revert
from vqkernels.functional import (
    code_sums,
    ema_update_,
    lookup,
    nearest_code,
    vector_quantize,
)
from vqkernels.nn._watch import CollapseWarning, Watch, watch
from vqkernels.options import (
    EMA,
    Entropy,
    Gradient,
    LevelDropout,
    Orthogonal,
    Revive,
    Sample,
    TopK,
)
from vqkernels.outputs import (
    CodebookHealth,
    CodeEntropy,
    CodeSums,
    CodeUsage,
    NearestCode,
    VQOutput,
)

__all__ = [
    "EMA",
    "CodeEntropy",
    "CodeSums",
    "CodeUsage",
    "CodebookHealth",
    "CollapseWarning",
    "Entropy",
    "Explanation",
    "Gradient",
    "LevelDropout",
    "NearestCode",
    "Orthogonal",
    "PreparedCodebook",
    "Revive",
    "Sample",
    "TopK",
    "VQOutput",
    "Watch",
    "__version__",
    "code_cross_entropy",
    "code_entropy",
    "code_orthogonality",
    "code_sums",
    "compat",
    "convert",
    "ema_update_",
    "explain",
    "lookup",
    "mask_from_lengths",
    "nearest_code",
    "nearest_codes",
    "nn",
    "prepare",
    "residual_quantize",
    "revert",
    "vector_quantize",
    "watch",
]
