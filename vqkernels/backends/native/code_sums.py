"""code_sums: counts and sums of the rows per code, on the CPU and on CUDA devices."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels.backends.native._arguments import (
    flat_indices,
    flat_mask,
    pointer,
    refuse,
    rows_of,
    stream_of,
    threads,
)
from vqkernels.backends.native._core import core


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
    """A bad index raises ValueError on the CPU; on CUDA its row is left out, unseen."""
    flat = flat_indices(indices)
    kept = flat_mask(mask)
    if x.is_cuda:
        with torch.cuda.device_of(x):
            return _on_cuda(x, flat, kept, num_codes, channel_dim, unit, skip_nonfinite)
    counts, sums = _empty(x, num_codes, channel_dim)
    bad = core.code_sums(
        rows_of(x, channel_dim),
        flat.data_ptr(),
        pointer(kept),
        num_codes,
        unit,
        skip_nonfinite,
        counts.data_ptr(),
        sums.data_ptr(),
        threads(x.numel()),
    )
    refuse(bad, flat, num_codes)
    return counts, sums


def _on_cuda(
    x: Tensor,
    flat: Tensor,
    kept: Tensor | None,
    num_codes: int,
    channel_dim: int,
    unit: bool,
    skip_nonfinite: bool,
) -> tuple[Tensor, Tensor]:
    rows, stream = rows_of(x, channel_dim), stream_of(x)
    keys = x.new_empty(flat.numel(), dtype=torch.int32)
    scales = x.new_empty(flat.numel(), dtype=torch.float64) if unit else None
    core.cuda.code_keys(
        rows,
        flat.data_ptr(),
        pointer(kept),
        num_codes,
        skip_nonfinite,
        keys.data_ptr(),
        pointer(scales),
        *stream,
    )
    keys, order = torch.sort(keys, stable=True)
    counts, sums = _empty(x, num_codes, channel_dim)
    size = core.cuda.code_sums_workspace(flat.numel(), sums.shape[1], num_codes)
    workspace = x.new_empty(size, dtype=torch.uint8)
    core.cuda.code_sums(
        rows,
        keys.data_ptr(),
        order.data_ptr(),
        pointer(scales),
        num_codes,
        workspace.data_ptr(),
        counts.data_ptr(),
        sums.data_ptr(),
        *stream,
    )
    return counts, sums


def _empty(x: Tensor, num_codes: int, channel_dim: int) -> tuple[Tensor, Tensor]:
    counts = x.new_empty(num_codes, dtype=torch.int64)
    return counts, x.new_empty(num_codes, x.shape[channel_dim], dtype=torch.float32)
