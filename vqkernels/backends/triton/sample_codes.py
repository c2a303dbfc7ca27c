"""sample_codes in Triton: the code at which a row's cumulative probability passes its draw."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vqkernels._layout import row_shape
from vqkernels.backends.triton._soft_pair import soft_pair
from vqkernels.backends.triton._soft_tile import logit_gain, probabilities


@triton.jit(do_not_specialize=["num_rows", "num_codes"])
def _sample_codes_kernel(
    rows_ptr,  # (N, W) fp32
    codes_ptr,  # (K, W) fp32
    upper_ptr,  # (N,) fp32
    lower_ptr,  # (N,) fp32
    factor_ptr,  # (N,) fp32
    code_bias_ptr,  # (K,) fp32
    scalars_ptr,  # (2,) fp64
    uniform_ptr,  # (N,) fp64
    indices_ptr,  # (N,) int64
    num_rows,
    num_codes,
    width,
    OWNERS: tl.constexpr,
    OTHERS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * OWNERS + tl.arange(0, OWNERS)
    row_ok = row < num_rows
    gain = logit_gain(scalars_ptr)
    missing = tl.load(uniform_ptr + row, mask=row_ok, other=0.0)  # less what the codes add up to
    drawn = tl.zeros((OWNERS,), tl.int64) + num_codes
    last = tl.zeros((OWNERS,), tl.int64)  # of positive probability
    place = tl.arange(0, OTHERS)[None, :]
    for start in range(0, num_codes, OTHERS):
        code = start + tl.arange(0, OTHERS).to(tl.int64)
        p, _ = probabilities(
            rows_ptr,
            codes_ptr,
            upper_ptr,
            lower_ptr,
            factor_ptr,
            code_bias_ptr,
            row,
            code,
            row_ok,
            code < num_codes,
            width,
            gain,
            True,
            OWNERS,
            OTHERS,
            CHANNELS,
        )
        possible = p > 0
        reached = possible & (tl.cumsum(p, axis=1) > missing.to(tl.float32)[:, None])
        first = tl.min(tl.where(reached, place, OTHERS), axis=1)
        drawn = tl.minimum(drawn, tl.where(first < OTHERS, start + first, num_codes))
        final = tl.max(tl.where(possible, place, -1), axis=1)
        last = tl.maximum(last, tl.where(final >= 0, start + final, 0))
        missing -= tl.sum(p, axis=1)
    tl.store(indices_ptr + row, tl.minimum(drawn, last), mask=row_ok)


def sample_codes(
    x: Tensor,
    codebook: Tensor,
    logsumexp: Tensor,
    uniform: Tensor,
    temperature: float,
    channel_dim: int,
) -> Tensor:
    """The code at which the cumulative probability of each row exceeds ``uniform``, (N,) float64.

    The last possible one where rounding leaves all of it below; 0 for a row without any.
    """
    indices = torch.empty(row_shape(x, channel_dim), dtype=torch.int64, device=x.device)
    if indices.numel() == 0:
        return indices
    pair = soft_pair(x, codebook, None, temperature, channel_dim)
    (num_rows, width), num_codes = pair.rows.shape, len(pair.codes)
    cut = pair.split(rows_own=True)
    with torch.cuda.device_of(indices):
        _sample_codes_kernel[(cut.tiles,)](
            pair.rows,
            pair.codes,
            *pair.normalisers(logsumexp.reshape(-1) + pair.row_bias),
            pair.code_bias,
            pair.scalars,
            uniform,
            indices,
            num_rows,
            num_codes,
            width,
            **cut.blocks,
        )
    return indices
