"""sample_rows: some rows of x, chosen by a hash."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels.backends.native._arguments import flat_mask, pointer, rows_of
from vqkernels.backends.native._core import core


def sample_rows(
    x: Tensor, mask: Tensor | None, clock: Tensor, count: int, seed: int, channel_dim: int
) -> tuple[Tensor, Tensor]:
    rows = x.new_empty(count, x.shape[channel_dim], dtype=torch.float32)
    found = torch.empty_like(clock)
    kept = flat_mask(mask)
    core.sample_rows(
        rows_of(x, channel_dim),
        pointer(kept),
        clock.data_ptr(),
        count,
        seed & 0xFFFFFFFF,
        rows.data_ptr(),
        found.data_ptr(),
    )
    return rows, found
