"""nearest_codes: the k best codes by the canonical score of every pair, in blocks."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels._layout import as_rows, row_shape
from vqkernels._numerics import upcast
from vqkernels.backends.reference.nearest_code import canonical_score

_PAIRS = 1 << 18  # scores per block: 2 MB of float64, which the sort holds several times
_CODES = 512


def nearest_codes(
    x: Tensor, codebook: Tensor, k: int, metric: str, channel_dim: int
) -> tuple[Tensor, Tensor]:
    """Indices (int64) and scores (float32) of the k best codes, best first, k axis last.

    Equal scores by ascending index. A place without a code (all places of a non-finite row; those
    for which there is no finite code) has index 0 and a NaN score.
    """
    rows, codes = upcast(as_rows(x, channel_dim)), upcast(codebook)
    sign = 1.0 if metric == "l2" else -1.0
    usable = codes.isfinite().all(dim=1)
    step = max(1, _PAIRS // (_CODES + k))
    indices = torch.zeros(rows.shape[0], k, dtype=torch.int64, device=x.device)
    best = torch.full_like(indices, torch.inf, dtype=torch.float64)
    for row in range(0, rows.shape[0], step):
        here = slice(row, row + step)
        for code in range(0, codes.shape[0], _CODES):
            there = slice(code, code + _CODES)
            score = sign * canonical_score(rows[here], codes[there], metric)
            score = torch.where(usable[there] & ~score.isnan(), score, torch.inf)
            number = torch.arange(code, code + score.shape[1], device=x.device)
            # What was found before has lower indices, and the sort is stable.
            score = torch.cat([best[here], score], dim=1)
            number = torch.cat([indices[here], number.expand(score.shape[0], -1)], dim=1)
            score, order = score.sort(dim=1, stable=True)
            best[here], indices[here] = score[:, :k], number.gather(1, order[:, :k])
    lost = ~rows.isfinite().all(dim=1)[:, None] | best.isinf()
    shape = (*row_shape(x, channel_dim), k)
    distances = (sign * best).masked_fill(lost, torch.nan).float()
    return indices.masked_fill(lost, 0).reshape(shape), distances.reshape(shape)
