"""code_sums: counts and sums of the rows per code."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels._layout import as_rows
from vqkernels._numerics import unit_rows, wide
from vqkernels.backends.reference._scatter import scatter_rows


def code_sums(
    x: Tensor,
    indices: Tensor,
    mask: Tensor | None,
    num_codes: int,
    channel_dim: int,
    *,
    unit: bool,
    skip_nonfinite: bool,
) -> tuple[Tensor, Tensor]:
    """Counts (int64) and sums per code of the rows (``unit``: of x/|x|) that chose it."""
    rows = as_rows(x, channel_dim)
    flat = indices.reshape(-1).long()
    counted = (flat >= 0) & (flat < num_codes)
    if mask is not None:
        counted &= mask.reshape(-1)
    if skip_nonfinite:
        counted &= rows.isfinite().all(dim=1)
    values = rows.double()
    if unit:
        values = unit_rows(values)
    # Rows left out go to an extra code that is cut off: no boolean indexing, no host sync.
    target = torch.where(counted, flat, num_codes)
    sums = scatter_rows(values, target, num_codes + 1)[:num_codes]
    counts = scatter_rows(counted.long()[:, None], target, num_codes + 1)[:num_codes, 0]
    return counts, sums.to(wide(x.dtype))
