"""The floor of a picture tokenizer: k-means on raw patches, as many codes, no network.

A codebook of mean patches (Lloyd's algorithm) spends the same bits on a picture as a tokenizer
with the same K and the same grid: log2(K) bits per patch. With several levels, the patches of the
coarsest are coded first and each finer level codes what is left. What a trained tokenizer keeps
beyond it, in dB, is what its networks are worth.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

import vqkernels as vq

PATCHES = 2**16  # of the training pictures that the codes are fitted to
ITERATIONS = 20


def through_patches(
    train: Tensor, x: Tensor, sides: Sequence[int], sizes: Sequence[int], seed: int = 0
) -> Tensor:
    """Pictures after they went through patch codes of every level, `(N, C, H, W)` float32.

    Args:
        train: `(M, C, H, W)` levels that the codes are fitted to; H and W multiples of all sides.
        x: `(N, C, H, W)` levels.
        sides: side of a patch in pixels, for each level, coarsest first.
        sizes: K of each level, at most its number of patches.
        seed: decides the patches, the first codes, and those that replace empty ones.

    Raises:
        ValueError: if there are fewer patches than codes.
    """
    left, decoded = train.float(), torch.zeros(x.shape, device=x.device)
    for side, size in zip(sides, sizes, strict=True):
        codebook = patch_codebook(left, side, size, seed)
        decoded = decoded + quantize_patches(x.float() - decoded, codebook, side)
        left = left - quantize_patches(left, codebook, side)
    return decoded


def patch_codebook(train: Tensor, side: int, num_embeddings: int, seed: int = 0) -> Tensor:
    """`(K, C * side^2)` float32 mean patches, by k-means on disjoint patches of the pictures.

    Args:
        train: `(N, C, H, W)` floating; H and W multiples of `side`.
        side: of a patch, in pixels.
        num_embeddings: K, at most the number of patches.
        seed: decides the patches, the first codes, and those that replace empty ones.

    Raises:
        ValueError: if there are fewer patches than codes.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = F.pixel_unshuffle(train, side).movedim(1, -1).flatten(0, -2)
    if len(rows) < num_embeddings:
        raise ValueError(
            f"train must have at least {num_embeddings} patches, one per code, got {len(rows)}"
        )
    rows = rows[torch.randperm(len(rows), generator=generator)[:PATCHES].to(rows.device)]
    codebook = rows[:num_embeddings].clone()
    for _ in range(ITERATIONS):
        indices = vq.nearest_code(rows, codebook).indices
        counts, sums = vq.code_sums(rows, indices, num_embeddings)
        fresh = torch.randint(len(rows), (num_embeddings,), generator=generator).to(rows.device)
        means = sums / counts.clamp(min=1)[:, None]
        codebook = torch.where((counts > 0)[:, None], means, rows[fresh])
    return codebook


def quantize_patches(x: Tensor, codebook: Tensor, side: int) -> Tensor:
    """`(N, C, H, W)` float pictures with each patch replaced by the nearest code, float32."""
    patches = F.pixel_unshuffle(x, side)
    indices = vq.nearest_code(patches, codebook).indices
    return F.pixel_shuffle(vq.lookup(indices, codebook), side)
