"""The codes of a residual quantizer whose levels are plain codebooks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from vqkernels import functional, ops

# Below this many rows, laying the codebooks side by side costs more than one op for all levels
# saves: the copy is of the order of the search itself (31 codebooks of 2048 x 256 and a second of
# speech, 13 rows: 39 ms against 14).
_FUSED_ROWS = 512


def all_at_once(
    x: Tensor, codebooks: Sequence[Tensor], channel_dim: int
) -> tuple[Tensor, Tensor] | None:
    """(the sum of the codes, like x; indices (L, *positions)) by one op for all levels.

    None where level by level is quicker, or gives other bits: the op keeps residuals in float32.
    Codes and arguments are those of ``residual_codes``; no gradient.
    """
    rows = x.numel() // max(x.shape[channel_dim], 1)
    wide = torch.promote_types(x.dtype, codebooks[0].dtype) == torch.float32
    if not wide or rows < _FUSED_ROWS or len(codebooks) < 2:
        return None
    with torch.no_grad():
        books = torch.stack(list(codebooks))
        channel = functional.check_search(x, books[0], "l2", channel_dim)
        options = (None, None, channel, False, False, False, None)
        total, indices = ops.residual(x.detach(), books, None, len(books), *options)[:2]
    return total, indices.movedim(-1, 0).contiguous()


def residual_codes(x: Tensor, codebooks: Sequence[Tensor], channel_dim: int) -> Tensor:
    """Level l's nearest codes of what the levels before it leave of x: int64, (L, *positions).

    ``r_0 = x``, ``r_{l+1} = r_l - c_l`` in the dtype that torch gives the difference, so that a
    model in half precision meets the residuals that it would without us. Exact per level, with
    the tie order and the rule for non-finite rows of ``vqkernels.nearest_code``.

    Args:
        x: (B, D, *spatial) with ``channel_dim=1``, any layout otherwise.
        codebooks: L tensors (K, D).
        channel_dim: dimension of x that holds the D channels.
    """
    if not codebooks:
        raise ValueError("the number of quantizers must be at least 1, got 0")
    found = all_at_once(x, codebooks, channel_dim)
    if found is not None:
        return found[1]
    left = x.detach()
    levels = [functional.nearest_code(left, codebooks[0], channel_dim=channel_dim).indices]
    for before, codebook in itertools.pairwise(codebooks):
        left = left - functional.lookup(levels[-1], before, channel_dim=channel_dim)
        levels.append(functional.nearest_code(left, codebook, channel_dim=channel_dim).indices)
    return torch.stack(levels)
