"""residual in Triton, level by level: a search, one pass after it, and the sums per code.

What a level leaves is an (N, D) float32 buffer that the next one searches; two of them take turns,
because the sums of a level are taken of its rows after the next buffer has been written.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels._layout import like_x, row_shape
from vqkernels.backends.triton._assign import Assignment
from vqkernels.backends.triton._layouts import joint_layout
from vqkernels.backends.triton._run_sums import run_sums
from vqkernels.backends.triton._runs import find_runs
from vqkernels.backends.triton.nearest_code import nearest_code


def residual(
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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The seven results of ``reference.residual``, as it defines them."""
    quantized = like_x(x, torch.float32)
    if joint_layout(channel_dim, x, quantized) is None:
        options = (channel_dim, statistics, need_x, need_codebooks)
        step = residual(x.contiguous(), codebooks, prepared, levels, mask, kept, *options)
        remainder = like_x(x, torch.float32).copy_(step[5]) if need_x else step[5]
        return quantized.copy_(step[0]), *step[1:5], remainder, step[6]

    codebooks = codebooks.contiguous()
    kept = None if kept is None else kept.contiguous()
    books, k, dim = codebooks.shape
    remainder = like_x(x, torch.float32) if need_x else x.new_empty(0, dtype=torch.float32)
    indices = x.new_empty((*row_shape(x, channel_dim), levels), dtype=torch.int64)
    mse = x.new_empty(levels, dtype=torch.float32)
    counts = x.new_empty((levels, k), dtype=torch.int64)
    sums = x.new_empty((levels if statistics else 0, k, dim), dtype=torch.float32)
    code_remainders = x.new_empty((levels if need_codebooks else 0, k, dim), dtype=torch.float32)

    flat = indices.view(-1, levels)
    buffers = [_rows_like(x, channel_dim) for _ in range(min(levels, 2))]
    after = Assignment(x, len(flat), mse, channel_dim)
    rows = x
    for level in range(levels):
        book = level % books
        codes = codebooks[book]
        own = prepared[book : book + 1] if prepared else None
        found, _ = nearest_code(rows, codes, own, "l2", channel_dim)
        left = buffers[level % 2]
        keys, _ = after.level(
            *(level, rows, codes, mask, kept, found.view(-1), flat[:, level], quantized, left),
            remainder if need_x else None,
        )
        runs = find_runs(keys, k, counts[level])
        if statistics:
            run_sums(rows, runs, sums[level], channel_dim)
        if need_codebooks:
            run_sums(left, runs, code_remainders[level], channel_dim)
        rows = left
    after.finish()
    if need_codebooks:
        # The sums leave out rows that are not finite; the gradient of their code, 0, shows them.
        lost = after.lost_rows() > 0
        code_remainders[:, 0].masked_fill_(lost[:, None], torch.nan)
    return quantized, indices, mse, counts, sums, remainder, code_remainders


def _rows_like(x: Tensor, channel_dim: int) -> Tensor:
    """Shaped like x, float32, every row in one piece."""
    shape = (*row_shape(x, channel_dim), x.shape[channel_dim])
    return x.new_empty(shape, dtype=torch.float32).movedim(-1, channel_dim)
