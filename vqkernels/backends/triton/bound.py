"""The certificate: why a code that the screen drops cannot be the nearest one.

Real numbers. a = x - mu and b_k = c_k - mu for any float32 vector mu (x and c as stored), and the
score S_k = a.b_k - |b_k|^2 / 2, so that |x - c_k|^2 = |a|^2 - 2 S_k: the nearest code has the
largest S. With the cosine metric mu = 0 and S_k = x.c_k. Rows are scaled by 2^p (each its own),
codes by 2^q (one for all), so that the largest magnitude of either lies in [2^7, 2^8).

A code, once per codebook, in float64: cs = 2^q b, ch = fp16(cs), cl = fp16(cs - ch), and measured
norms rounded up: delta >= |cs - ch - cl|, H >= |ch|, T >= |cs - ch|. A row, in float32:
z = 2^p fl(x - mu), xh = fp16(z), t = z - xh (exact), xl = fp16(t), and X >= |z|,
R >= | |t - xl| + 2^-24 |z| |, Tx >= | |t| + 2^-24 |z| |: the 2^-24 |z| is the rounding of x - mu,
that of c - mu is in the norms, which are measured against float64. By Cauchy-Schwarz

    three products   2^(p+q) a.b = xl.ch + xh.cl + xh.ch + e,   |e| <= X delta + R H + Tx T
    two              2^(p+q) a.b =         xh.cl + xh.ch + e,   |e| <= X delta + Tx (H + T)
    one              2^(p+q) a.b =                 xh.ch + e,   |e| <= X T     + Tx (H + T)

The matrix unit computes the products and, in spare lanes of its inner dimension, the rest: three
lanes hold the bias -2^t |b|^2/2 in parts (times lam = 2^(p+q-t)), two to three the bound on e, two
a shift that is the same for all codes. So it returns an upper bound U_k >= 2^(p+q) S_k + shift, up
to its own rounding.

That rounding. A unit aligns n products and the accumulator to the largest of them, keeps 23 + e
bits below it, truncates, and truncates the result to float32. With V the sum of the magnitudes of
all terms, the error after all blocks of n is at most alpha V (``accumulation_error``); alpha times
the part of V that belongs to the products is added to delta, the bias is shrunk and the shift is
read back smaller by the same factor. The factor 1.01 covers what these lanes add to V.

The shift makes the best score positive, so that scores can be compared as integers: the best S is
at least -(|a| |b_0| + |b_0|^2/2) for any one code b_0. A negative score may compare wrongly among
negative ones and never reaches a positive one.

Certify. For one code k* of the best group, in float64 from the originals,
L = 2^(p+q) [(|a|^2 - F)/2 - 2^-37 (|a|^2 + F)] + shift <= 2^(p+q) S_k* + shift; the 2^-37 covers
the roundings of |a|^2 and of two F, each (D+2) 2^-53 of itself, so that a code with U < L loses in
F and not only in exact arithmetic. Every group with not (U < L) is evaluated. Dropping the bias of
a row (lam = 0 where it underflows) keeps U an upper bound, because the bias is never positive. A
row whose |x - mu| exceeds 2^120, or is denormal in all components, is not screened.

The widths (n, e) are those that Fasi et al. (2021) and Khattak and Mikaitis (arXiv 2512.07004)
measured; a unit that is not in the table gets the widest rounding of all.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Compute capability -> (products that are aligned together, extra bits kept below 2^-23).
UNITS = {
    **dict.fromkeys((80, 86, 87, 89), (8, 1)),
    **dict.fromkeys((90, 100, 103, 120, 121), (16, 2)),
}
UNKNOWN_UNIT = (4, 0)

# Rows with a larger component are left to the scan: their squares come near float32's limit.
HUGE = tl.constexpr(2.0**120)
MAX_DIM = 16384  # the norm of a scaled row has to fit into fp16
SLACK = tl.constexpr(1.01)


def accumulation_error(unit: tuple[int, int], small: int, large: int) -> float:
    """alpha: the matrix unit's error relative to the sum of the magnitudes of what it adds.

    Args:
        unit: (n, e) of the hardware.
        small: inner positions multiplied first, whose products are 2^-9 of the others' or less.
        large: inner positions that follow.
    """
    n, e = unit
    per_block = (n + 1) * 2.0**-e + 1
    only_small = small // n  # a block that also holds a large product counts as one
    blocks = -(-(small + large) // n) - only_small
    return 2.0**-23 * per_block * (blocks + 2.0**-9 * only_small)


@triton.jit
def half_above(value):
    """The fp16 above a float32 that is not negative and at most 6e4."""
    return (value * (1 + 2.0**-9) + 2.0**-24).to(tl.float16)


@triton.jit
def power_of_two(exponent):
    """2^exponent in float32, for exponents in [-126, 127]."""
    return ((exponent + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit
def power_of_two_double(exponent):
    """2^exponent in float64, for exponents in [-1022, 1023]."""
    return ((exponent.to(tl.int64) + 1023) << 52).to(tl.float64, bitcast=True)


@triton.jit
def scaled(value, exponent):
    """value * 2^exponent in float32, for exponents in [-252, 254]: exact but for underflow."""
    half = exponent >> 1
    return value * power_of_two(half) * power_of_two(exponent - half)


@triton.jit
def exponent_of(value):
    """floor(log2(value)) of a positive float32; of a denormal or zero, -126."""
    return tl.maximum((value.to(tl.int32, bitcast=True) >> 23) & 255, 1) - 127


@triton.jit
def exponent_of_double(value):
    """floor(log2(value)) of a positive float64; at least -1000."""
    return tl.maximum(((value.to(tl.int64, bitcast=True) >> 52) & 2047).to(tl.int32) - 1023, -1000)


@triton.jit
def row_exponent(largest, q, t):
    """p of a row by its largest |x - mu|: scaled to [2^7, 2^8), unless lam passes 2^15 then."""
    return tl.maximum(tl.minimum(7 - exponent_of(largest), 15 + t - q), -126)


@triton.jit
def bias_factor(p, q, t):
    """lam = 2^(p+q-t), at most 2^15 by ``row_exponent``; 0 where fp16 has no such power."""
    exponent = p + q - t
    return tl.where(exponent < -24, 0.0, power_of_two(tl.maximum(exponent, -24)))


@triton.jit
def split_half(value):
    """fp16(value) and what it leaves, in the type of ``value``; the difference is exact."""
    half = value.to(tl.float16)
    return half, value - half.to(value.dtype)


@triton.jit
def code_lanes(lane, usable, bias, rounding, delta, h, t, shift_norm, shift_bias):
    """The codes' side of the lanes, fp16, broadcast over the lane numbers ``lane``.

    0, 1, 2: the bias in parts, the last rounded up. 3: delta. 4: 2^-8 H. 5: T. 6, 7: the shift.
    8: T for one product. 9: 2^-8 (H + T). A code that cannot be chosen is far below every score.

    Args:
        bias: (1 - alpha) 2^t |b|^2/2, negated; float64, as are the others.
        rounding: alpha |cs|, which is added wherever X is the factor.
        shift_norm, shift_bias: the norm and bias of the code b_0, rounded up to fp16.
    """
    first, left = split_half(bias)
    second, left = split_half(left)
    third = (left + tl.abs(left) * 2.0**-10 + 2.0**-24).to(tl.float16)
    first = tl.where(usable, first, -60000.0)
    second = tl.where(usable, second, 0.0)
    third = tl.where(usable, third, 0.0)
    above = tl.where(lane == 3, delta + rounding, 0.0)
    above = tl.where(lane == 4, h * 2.0**-8, above)
    above = tl.where(lane == 5, t, above)
    above = tl.where(lane == 8, t + rounding, above)
    above = tl.where(lane == 9, (h + t) * 2.0**-8, above)
    value = half_above(above.to(tl.float32))
    value = tl.where(lane == 6, shift_norm, value)
    value = tl.where(lane == 7, shift_bias, value)
    value = tl.where(usable & (lane >= 3) & (lane <= 9), value, 0.0)
    value = tl.where(lane == 0, first, value)
    value = tl.where(lane == 1, second, value)
    return tl.where(lane == 2, third, value).to(tl.float16)


@triton.jit
def row_lanes(lane, lam, x_norm, r_norm, t_norm, PRODUCTS: tl.constexpr):
    """The rows' side of the lanes, fp16: what multiplies ``code_lanes`` with so many products.

    Args:
        lam: ``bias_factor`` of the row.
        x_norm, r_norm, t_norm: X, 2^8 R and Tx, or 2^8 Tx with fewer than three; fp16.
    """
    factor = tl.where((lane < 3) | (lane == 7), lam.to(tl.float16), 0.0)
    factor = tl.where(lane == 6, x_norm, factor)
    if PRODUCTS == 1:
        factor = tl.where(lane == 8, x_norm, factor)
    else:
        factor = tl.where(lane == 3, x_norm, factor)
    if PRODUCTS == 3:
        factor = tl.where(lane == 4, r_norm, factor)
        factor = tl.where(lane == 5, t_norm, factor)
    else:
        factor = tl.where(lane == 9, t_norm, factor)
    return factor.to(tl.float16)
