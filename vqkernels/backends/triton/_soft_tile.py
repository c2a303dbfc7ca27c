"""A tile of log-probabilities.

log p_nk = s_nk - log sum_j exp s_nj with s_nk = (2 x_n.c_k - |c_k|^2) / T: of |x_n|^2 the softmax
knows nothing. Either side may own a program and meet the other one: the bits of s are the same.
"""

from __future__ import annotations

import triton
import triton.language as tl

# exp of it is 0, and so is that 0 times any weight, which it is not with a log p of -inf.
NOTHING = tl.constexpr(-1000.0)


@triton.jit
def scores(
    own_ptr,  # (M, W) fp32
    other_ptr,  # (L, W) fp32
    own,  # (OWNERS,) int64
    other,  # (OTHERS,) int64
    own_ok,
    other_ok,
    code_bias,  # (OWNERS, 1) | (1, OTHERS) fp32
    width,
    scale,
    OWNERS: tl.constexpr,
    OTHERS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """s, (OWNERS, OTHERS) float32; -inf for a code of no part.

    "ieee", as TF32 would be off by 2^-11 of |x| |c| / T, which T makes as large as one likes.
    """
    total = tl.zeros((OWNERS, OTHERS), tl.float32)
    for start in range(0, width, CHANNELS):
        column = start + tl.arange(0, CHANNELS)
        own_at = own_ptr + (own[:, None] * width + column[None, :])
        other_at = other_ptr + (other[None, :] * width + column[:, None])
        a = tl.load(own_at, mask=own_ok[:, None], other=0.0)
        b = tl.load(other_at, mask=other_ok[None, :], other=0.0)
        total = tl.dot(a, b, total, input_precision="ieee")
    return tl.fma(total, scale, -code_bias)


@triton.jit
def log_probabilities(
    own_ptr,  # (M, W) fp32
    other_ptr,  # (L, W) fp32
    log_sums_ptr,  # (N,) fp64
    code_bias_ptr,  # (K,) fp32
    own,  # (OWNERS,) int64
    other,  # (OTHERS,) int64
    own_ok,
    other_ok,
    width,
    scale,
    ROWS_OWN: tl.constexpr,
    OWNERS: tl.constexpr,
    OTHERS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """log p, (OWNERS, OTHERS) float32, at least NOTHING.

    Near the maximum s less the upper part of the log-sum is exact, so that the probabilities of
    a row sum to 1 however large its scores are.
    """
    row, row_ok, code, code_ok = own, own_ok, other, other_ok
    if not ROWS_OWN:
        row, row_ok, code, code_ok = other, other_ok, own, own_ok
    log_sum = tl.load(log_sums_ptr + row, mask=row_ok, other=float("inf"))
    code_bias = tl.load(code_bias_ptr + code, mask=code_ok, other=float("inf"))
    log_sum = tl.minimum(log_sum, 2.0**127)  # with an infinite one the lower part would be NaN
    high = log_sum.to(tl.float32)
    low = (log_sum - high).to(tl.float32)
    row_axis: tl.constexpr = 1 if ROWS_OWN else 0
    s = scores(
        own_ptr,
        other_ptr,
        own,
        other,
        own_ok,
        other_ok,
        tl.expand_dims(code_bias, 1 - row_axis),
        width,
        scale,
        OWNERS,
        OTHERS,
        CHANNELS,
    )
    log_p = s - tl.expand_dims(high, row_axis) - tl.expand_dims(low, row_axis)
    return tl.maximum(log_p, NOTHING)
