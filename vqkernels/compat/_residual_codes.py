"""The codes of a residual quantizer whose levels are plain codebooks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vqkernels import functional, ops

# Below this many rows, laying the codebooks side by side costs more than one op for all levels
# saves: the copy is of the order of the search itself (31 codebooks of 2048 x 256 and a second of
# speech, 13 rows: 39 ms against 14).
_FUSED_ROWS = 512


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
    first = codebooks[0]
    channel = functional.check_search(x, first, "l2", channel_dim)
    rows = x.numel() // max(x.shape[channel], 1)
    wide = torch.promote_types(x.dtype, first.dtype) == torch.float32
    if wide and rows >= _FUSED_ROWS and len(codebooks) > 1:
        with torch.no_grad():
            books = torch.stack(list(codebooks))
            options = (None, None, channel, False, False, False, None)
            indices = ops.residual(x.detach(), books, None, len(books), *options)[1]
        return indices.movedim(-1, 0).contiguous()
    left, levels = x.detach(), []
    for codebook in codebooks:
        indices = functional.nearest_code(left, codebook, channel_dim=channel).indices
        left = left - functional.lookup(indices, codebook, channel_dim=channel)
        levels.append(indices)
    return torch.stack(levels)
