"""A tile of probabilities.

With s_nk = x_n.c_k - |c_k|^2 / 2 and gain 2 / T, both as scaled, a logit is gain s_nk and a number
of the row, so p_n = softmax(gain s_n). Either side may own a program and meet the other one: the
bits of s are the same.
"""

from __future__ import annotations

import triton
import triton.language as tl

# exp of it is 0, and so is that 0 times any weight, which it is not with a logit of -inf.
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
    return total - code_bias


@triton.jit
def logit_gain(scalars_ptr):
    """The gain in float32; where it is bounded, the smallest difference of scores decides."""
    return tl.minimum(tl.load(scalars_ptr), 2.0**126).to(tl.float32)


@triton.jit
def probabilities(
    own_ptr,  # (M, W) fp32
    other_ptr,  # (L, W) fp32
    upper_ptr,  # (N,) fp32
    lower_ptr,  # (N,) fp32
    factor_ptr,  # (N,) fp32
    code_bias_ptr,  # (K,) fp32
    own,  # (OWNERS,) int64
    other,  # (OTHERS,) int64
    own_ok,
    other_ok,
    width,
    gain,
    ROWS_OWN: tl.constexpr,
    OWNERS: tl.constexpr,
    OTHERS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """(p, t), (OWNERS, OTHERS) float32: p = factor exp(t), t = gain (s - upper) - lower.

    t is at least NOTHING. The three numbers of a row are ``SoftPair.normalisers``: near the upper
    one the difference is exact, so that p sums to 1 however large the scores of a row are.
    """
    row, row_ok, code, code_ok = own, own_ok, other, other_ok
    if not ROWS_OWN:
        row, row_ok, code, code_ok = other, other_ok, own, own_ok
    row_axis: tl.constexpr = 1 if ROWS_OWN else 0
    upper = tl.load(upper_ptr + row, mask=row_ok, other=float("inf"))
    lower = tl.load(lower_ptr + row, mask=row_ok, other=0.0)
    factor = tl.load(factor_ptr + row, mask=row_ok, other=0.0)
    code_bias = tl.load(code_bias_ptr + code, mask=code_ok, other=float("inf"))
    s = scores(
        own_ptr,
        other_ptr,
        own,
        other,
        own_ok,
        other_ok,
        tl.expand_dims(code_bias, 1 - row_axis),
        width,
        OWNERS,
        OTHERS,
        CHANNELS,
    )
    t = gain * (s - tl.expand_dims(upper, row_axis)) - tl.expand_dims(lower, row_axis)
    t = tl.maximum(t, NOTHING)
    return tl.exp(t) * tl.expand_dims(factor, row_axis), t
