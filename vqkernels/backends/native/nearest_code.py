"""nearest_code: the search, on the CPU and on CUDA devices."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels._layout import row_shape
from vqkernels.backends.native._arguments import (
    METRIC,
    contiguous_codes,
    prepared_block,
    rows_of,
    stream_of,
    threads,
)
from vqkernels.backends.native._core import core


def nearest_code(
    x: Tensor, codebook: Tensor, prepared: list[Tensor] | None, metric: str, channel_dim: int
) -> tuple[Tensor, Tensor]:
    shape = row_shape(x, channel_dim)
    indices = x.new_empty(shape, dtype=torch.int64)
    distances = x.new_empty(shape, dtype=torch.float32)
    codes = contiguous_codes(codebook)
    arguments = (rows_of(x, channel_dim), codes.data_ptr(), codes.shape[0], METRIC[metric])
    results = (indices.data_ptr(), distances.data_ptr())
    if x.is_cuda:
        size = core.cuda.nearest_code_workspace(indices.numel(), codes.shape[0])
        workspace = x.new_empty(size, dtype=torch.uint8)
        with torch.cuda.device_of(x):
            core.cuda.nearest_code(*arguments, workspace.data_ptr(), *results, *stream_of(x))
    else:
        work = x.numel() * codes.shape[0]
        core.nearest_code(*arguments, prepared_block(prepared), *results, threads(work))
    return indices, distances
