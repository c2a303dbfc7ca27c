"""The canonical score, and the choice among codes by it: what decides, whatever was screened.

A code is evaluated in float64 as ``reference`` defines it only if a float32 interval leaves it
open. The interval of |x - c|^2: the direct form in float32, in any order of summation, is off by
less than 2 gamma of itself, gamma = (D+2) 2^-24 / (1 - (D+2) 2^-24), and D 2^-126 where terms
underflow. Of -x.c: 2 gamma times the sum of |x_i c_i|, and the same. Differences are multiplied by
a power of two first, which keeps their squares in float32's range; a factor of x alone could
underflow where a code is large. What overflows all the same counts as open, and so does everything
where D is too large for gamma. Float64's own rounding is far inside of these intervals, so a code
whose interval lies above a computed F has a larger F.
"""

from __future__ import annotations

import triton
import triton.language as tl

from vqkernels.backends.triton.bound import power_of_two, power_of_two_double

NO_CODE = tl.constexpr(2**62)


@triton.jit
def lower_end(value, magnitude, dim):
    """Below the exact value, by its float32 form and the sum of its terms' magnitudes."""
    unit = (dim + 2) * 2.0**-24
    low = value - 2 * unit / (1 - unit) * magnitude - dim * 2.0**-126
    low = tl.where(unit < 0.5, low, float("-inf"))
    return tl.where(magnitude < float("inf"), low, float("-inf"))


@triton.jit
def common_scale(exponent_ptr, L2: tl.constexpr):
    """A factor of differences that brings the codes near 1, and what turns squares back.

    The first a power of two in float32, the second in float64; by q of the codebook (``bound``).
    Both are 1 for products, which need none.
    """
    exponent = tl.maximum(tl.minimum(tl.load(exponent_ptr).to(tl.int32) - 8, 126), -126)
    exponent = exponent if L2 else exponent * 0
    return power_of_two(exponent), power_of_two_double(-2 * exponent)


@triton.jit
def intervals(
    x_row, dim_stride, group_row, member, alive, dim, scale,
    L2: tl.constexpr, ROWS: tl.constexpr, CODES: tl.constexpr, DIMS: tl.constexpr,
):  # fmt: skip
    """Lower ends for some members of each row's group, (ROWS, CODES); infinite if not alive.

    ``group_row`` (ROWS,) points to the first code of the group, ``member`` (CODES,) counts from
    there.
    """
    column = tl.arange(0, DIMS)
    value = tl.zeros((ROWS, CODES), tl.float32)
    magnitude = tl.zeros((ROWS, CODES), tl.float32)
    rows = tl.max(alive.to(tl.int32), axis=1) == 1
    for start in range(0, dim, DIMS):
        d = start + column
        real = d < dim
        x_at = x_row[:, None] + d[None, :].to(tl.int64) * dim_stride
        x = tl.load(x_at, mask=rows[:, None] & real[None, :], other=0.0).to(tl.float32)
        c_at = group_row[:, None, None] + (member[None, :, None] * dim + d[None, None, :])
        c = tl.load(c_at, mask=alive[:, :, None] & real[None, None, :], other=0.0).to(tl.float32)
        alive &= tl.min((tl.abs(c) < float("inf")).to(tl.int32), axis=2) == 1
        if L2:
            t = (x[:, None, :] - c) * scale
            value += tl.sum(t * t, axis=2)
        else:
            t = x[:, None, :] * c
            value -= tl.sum(t, axis=2)
            magnitude += tl.sum(tl.abs(t), axis=2)
    if L2:
        magnitude = value
    return tl.where(alive, lower_end(value, magnitude, dim), float("inf"))


@triton.jit
def score(x_row, dim_stride, codebook_ptr, code, dim, rows, L2: tl.constexpr):
    """F(x, c), or -x.c: float64, (ROWS,); i ascending, each operation rounded.

    Args:
        x_row, code, rows: (ROWS,) pointers to x, code numbers, and which of them are real.
    """
    c_row = codebook_ptr + code * dim
    total = tl.zeros(code.shape, tl.float64)
    for i in range(0, dim):
        x = tl.load(x_row + tl.cast(i, tl.int64) * dim_stride, mask=rows, other=0.0)
        c = tl.load(c_row + i, mask=rows, other=0.0)
        x, c = x.to(tl.float32).to(tl.float64), c.to(tl.float32).to(tl.float64)
        if L2:
            t = x - c
            total = total + t * t
        else:
            total = total - x * c
    return total


@triton.jit
def equal_codes(codebook_ptr, codes, chosen, dim, wanted):
    """Which of ``codes`` (ROWS or 1, CODES) equal the code ``chosen`` (ROWS,) of their row."""
    same = wanted
    for i in range(0, dim):
        c = tl.load(codebook_ptr + codes * dim + i, mask=wanted, other=0.0)
        b = tl.load(codebook_ptr + chosen * dim + i)
        same &= c == b[:, None]
    return same


@triton.jit
def settle(
    x_row,
    dim_stride,
    codebook_ptr,
    dim,
    low,  # (ROWS, CODES) float32: lower ends of the intervals, scaled; infinite: takes no part
    codes,  # (ROWS, CODES) int64
    best,  # (ROWS,) float64: the best score so far
    best_code,  # (ROWS,) int64: its code; NO_CODE without one
    unscale,  # float64: turns scaled squares into scores
    L2: tl.constexpr,
):
    """(best, best_code) after all codes whose interval does not lie above the best score.

    The most promising one of every row comes first; an equal code cannot win after it.
    """
    still = (low < float("inf")) & (low.to(tl.float64) * unscale <= best[:, None])
    while tl.max(still.to(tl.int32)) != 0:
        lowest = tl.min(tl.where(still, low, float("inf")), axis=1)
        first = still & (low == lowest[:, None])
        code = tl.min(tl.where(first, codes, NO_CODE), axis=1)
        rows = code < NO_CODE
        code = tl.where(rows, code, 0)
        value = score(x_row, dim_stride, codebook_ptr, code, dim, rows, L2)
        better = rows & ((value < best) | ((value == best) & (code < best_code)))
        best = tl.where(better, value, best)
        best_code = tl.where(better, code, best_code)
        still &= (codes != code[:, None]) & (low.to(tl.float64) * unscale <= best[:, None])
        if tl.max(still.to(tl.int32)) != 0:
            higher = still & (codes > code[:, None])
            still &= ~equal_codes(codebook_ptr, codes, code, dim, higher)
    return best, best_code
