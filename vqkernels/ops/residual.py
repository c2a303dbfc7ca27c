"""residual: all levels of a residual quantizer, with what their statistics and gradients need.

``prepared`` holds one block per codebook. ``kept`` (int64, positions) is the number of levels,
from the first, that a row takes part in; at the others it is as a masked one, except that the mean
of squares stays that over all rows that are not masked.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels._layout import like_x, row_shape
from vqkernels._numerics import wide
from vqkernels.backends import reference
from vqkernels.ops._library import define
from vqkernels.ops.dispatch import choose, launcher
from vqkernels.ops.nearest_code import search

_Result = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def _impl(
    x: Tensor,
    codebooks: Tensor,
    prepared: list[Tensor] | None,
    levels: int,
    mask: Tensor | None,
    kept: Tensor | None,
    channel_dim: int,
    statistics: bool,
    need_x: bool,
    need_codebooks: bool,
    backend: str | None,
) -> _Result:
    options = (mask, kept, channel_dim, statistics, need_x, need_codebooks)
    if choose("residual", x, codebooks, backend) != "reference":
        chosen = launcher("residual", x, codebooks, backend)
        return chosen.residual(x, codebooks, prepared, levels, *options)

    def nearest(rows: Tensor, codes: Tensor) -> Tensor:
        return search(rows, codes, None, "l2", 1, backend)[0]

    return reference.residual(x, codebooks, levels, *options, nearest)


def _fake(
    x: Tensor,
    codebooks: Tensor,
    prepared: list[Tensor] | None,
    levels: int,
    mask: Tensor | None,
    kept: Tensor | None,
    channel_dim: int,
    statistics: bool,
    need_x: bool,
    need_codebooks: bool,
    backend: str | None,
) -> _Result:
    k, d = codebooks.shape[1:]
    dtype = wide(x.dtype, codebooks.dtype)
    return (
        like_x(x, dtype),
        x.new_empty((*row_shape(x, channel_dim), levels), dtype=torch.int64),
        x.new_empty(levels, dtype=dtype),
        x.new_empty((levels, k), dtype=torch.int64),
        x.new_empty((levels if statistics else 0, k, d), dtype=dtype),
        like_x(x, dtype) if need_x else x.new_empty(0, dtype=dtype),
        x.new_empty((levels if need_codebooks else 0, k, d), dtype=dtype),
    )


residual = define(
    "residual(Tensor x, Tensor codebooks, Tensor[]? prepared, int levels, Tensor? mask, "
    "Tensor? kept, int channel_dim, bool statistics, bool need_x, bool need_codebooks, "
    "str? backend) -> (Tensor quantized, Tensor indices, Tensor mse, Tensor counts, Tensor sums, "
    "Tensor remainder, Tensor code_remainders)",
    _impl,
    _fake,
)
