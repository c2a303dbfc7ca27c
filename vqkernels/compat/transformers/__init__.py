"""Hugging Face transformers: the quantizers of ``EncodecModel``, ``MimiModel`` and ``DacModel``.

Constructors take ``config``: a configuration of theirs, or anything with the attributes named.
"""

from vqkernels.compat.transformers.dac import DacResidualVectorQuantizer, DacVectorQuantize
from vqkernels.compat.transformers.encodec import (
    EncodecEuclideanCodebook,
    EncodecResidualVectorQuantizer,
    EncodecVectorQuantization,
)
from vqkernels.compat.transformers.mimi import (
    MimiEuclideanCodebook,
    MimiResidualVectorQuantizer,
    MimiSplitResidualVectorQuantizer,
    MimiVectorQuantization,
)

__all__ = [
    "DacResidualVectorQuantizer",
    "DacVectorQuantize",
    "EncodecEuclideanCodebook",
    "EncodecResidualVectorQuantizer",
    "EncodecVectorQuantization",
    "MimiEuclideanCodebook",
    "MimiResidualVectorQuantizer",
    "MimiSplitResidualVectorQuantizer",
    "MimiVectorQuantization",
]
