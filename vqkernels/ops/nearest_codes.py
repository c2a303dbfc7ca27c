"""nearest_codes: the search for more than one code. Integer output, so no gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels._layout import row_shape
from vqkernels.ops._library import define
from vqkernels.ops.dispatch import launcher


def _impl(
    x: Tensor, codebook: Tensor, k: int, metric: str, channel_dim: int, backend: str | None
) -> tuple[Tensor, Tensor]:
    chosen = launcher("nearest_codes", x, codebook, backend)
    return chosen.nearest_codes(x, codebook, k, metric, channel_dim)


def _fake(
    x: Tensor, codebook: Tensor, k: int, metric: str, channel_dim: int, backend: str | None
) -> tuple[Tensor, Tensor]:
    shape = (*row_shape(x, channel_dim), k)
    return x.new_empty(shape, dtype=torch.int64), x.new_empty(shape, dtype=torch.float32)


nearest_codes = define(
    "nearest_codes(Tensor x, Tensor codebook, int k, str metric, int channel_dim, str? backend) "
    "-> (Tensor indices, Tensor distances)",
    _impl,
    _fake,
)
