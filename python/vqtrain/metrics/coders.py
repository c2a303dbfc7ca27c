"""What codes cost without a prior: uniform, by their frequencies, and under a general compressor.

Three yardsticks for a prior, weakest first. Each reads one level of codes and knows neither class
nor position; only the compressor sees repetition.
"""

import importlib.util
import math

import numpy as np
import torch
from torch import Tensor

ZSTD_LEVEL = 19


def uniform_bits(num_embeddings: int) -> float:
    """log2 K, the bits of a code when all are equally likely."""
    return math.log2(num_embeddings)


def unigram(codes: Tensor, num_embeddings: int) -> Tensor:
    """`(K,)` float64 code frequencies; smoothing by 1 keeps the bits of an unseen code finite.

    Args:
        codes: integer tensor of any shape, of the clean training items.
        num_embeddings: K.
    """
    counts = torch.bincount(codes.flatten().long(), minlength=num_embeddings).double() + 1
    return counts / counts.sum()


def zstd_bits(codes: Tensor, num_embeddings: int) -> float | None:
    """Bits per code of the whole stream under zstd, level 19; None without `zstandard`.

    The codes lie one after another in raster order, each in as few whole bytes as hold K - 1,
    high byte planes apart from low ones: a byte-wise compressor sees nothing in packed bits.

    Args:
        codes: integer tensor of any shape, values in `0 .. num_embeddings - 1`.
        num_embeddings: K.
    """
    if importlib.util.find_spec("zstandard") is None:
        return None
    import zstandard

    stream = codes.flatten().cpu().numpy().astype("<u4").view(np.uint8).reshape(-1, 4)
    width = max(1, math.ceil(math.log2(num_embeddings) / 8))
    packed = np.ascontiguousarray(stream[:, :width].T).tobytes()
    return 8 * len(zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(packed)) / codes.numel()
