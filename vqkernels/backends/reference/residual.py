"""residual: the residual quantizer, level by level."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vqkernels._layout import as_rows, like_x, row_shape, write_rows
from vqkernels._numerics import wide
from vqkernels.backends.reference._scatter import scatter_rows
from vqkernels.backends.reference.vq_forward import vq_forward


def residual(
    x: Tensor,
    codebooks: Tensor,
    levels: int,
    mask: Tensor | None,
    kept: Tensor | None,
    channel_dim: int,
    statistics: bool,
    need_x: bool,
    need_codebooks: bool,
    nearest: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """``vq_forward`` on x, then on what each level leaves of it: r_{l+1} = r_l - c_l (wide).

    ``nearest(rows, codes)`` is the search. A row is masked at the levels from ``kept`` on; every
    mean is over the rows that are not masked at all. Returns (quantized, indices, mse, counts,
    sums, remainder, code_remainders): the last two are the sums of r_{l+1} over the levels, shaped
    like x, and over the rows of each code, (L, K, D).
    """
    dtype = wide(x.dtype, codebooks.dtype)
    rows = as_rows(x, channel_dim).to(dtype)
    valid = rows.new_ones(len(rows), dtype=torch.bool) if mask is None else mask.reshape(-1)
    last = None if kept is None else kept.reshape(-1)
    num_codes, dim = codebooks.shape[1:]
    left = rows
    quantized = remainder = torch.full_like(rows, -0.0)  # -0.0 + c has the bits of c
    steps = []
    for level in range(levels):
        codes = codebooks[level % len(codebooks)].to(dtype)
        taking = valid if last is None else valid & (last > level)
        found = nearest(left, codes)
        step = vq_forward(left, codes, found, taking, "l2", 1, statistics, valid.sum())
        chosen, flat = step[:2]
        taking = taking[:, None]
        left = torch.where(taking, left - chosen, 0.0)
        quantized = torch.where(taking, quantized + chosen, quantized)
        remainder = torch.where(taking, remainder + left, remainder)
        per_code = left.new_empty(0, num_codes, dim)
        if need_codebooks:
            target = torch.where(flat >= 0, flat, num_codes)
            per_code = scatter_rows(left.double(), target, num_codes + 1)[None, :num_codes]
        steps.append((*step[1:], per_code.to(dtype)))

    indices, mse, counts, sums, code_remainders = zip(*steps, strict=True)
    coded = valid if last is None else valid & (last > 0)
    quantized = torch.where(coded[:, None], quantized, torch.where(valid[:, None], 0.0, rows))
    remainder = torch.where(coded[:, None], remainder, 0.0)
    return (
        write_rows(quantized, like_x(x, dtype), channel_dim),
        torch.stack(indices, dim=1).reshape(*row_shape(x, channel_dim), levels),
        torch.stack(mse),
        torch.stack(counts),
        torch.stack(sums) if statistics else rows.new_empty(0, num_codes, dim),
        write_rows(remainder, like_x(x, dtype), channel_dim) if need_x else rows.new_empty(0),
        torch.cat(code_remainders),
    )
