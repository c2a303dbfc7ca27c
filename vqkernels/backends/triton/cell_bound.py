"""The certificate of the pruned search: why no code of a cell can be the nearest one.

The codes are parted into cells with centres m_g; both may be any. The function
A(y) = |y - m_j|^2 - |y - m_g|^2 is affine with a gradient of length 2d, d = |m_j - m_g|, so that
for a row x and the codes c of g

    |x - c| >= (A(c) - A(x)) / 2d >= h[j, g] + (|x - m_g|^2 - |x - m_j|^2) / 2d,
    h[j, g] = min over c in g of (|c - m_j|^2 - |c - m_g|^2) / 2d

(Hilbert exclusion, Connor et al., arXiv:1604.08640).
j may be any cell; that of the nearest centre gives the largest bounds. A cell is left out if its
bound is above the distance to a code that is known: then every code of it has the larger F, too.

Rounding. All lengths are multiplied by a power of two that brings the codes near 1. The table
holds inverses = 1/2d', where d' >= d, so that a positive bound only shrinks, and margins = h for
that d', less its error in float64 and 2^-21 of itself. The squares of a row are differences summed
in float32: off by less than 2 gamma of themselves, gamma as in ``exact``, and by D 2^-126 where
terms underflow. Their difference, its product with the rounded inverse, and the sum with h add 7
roundings of 2^-24 of what is added up, of which 2^-21 |h| covers the part of h. So

    low = h + inverse * (s_g - s_j - 4 (D + 8) 2^-24 (s_g + s_j) - D 2^-124)

is below the bound. Two centres that nearly coincide have a large inverse and hence a large error:
their cells are looked at, as are those of equal centres, h = -inf. What overflows gives a NaN or
-inf and is looked at. The reach, the distance that is known, is rounded up: by 2^-36 in float64,
which covers F's own roundings, by 2^-22 in float32, and by 2^-120 for what underflows.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_LARGEST_INVERSE = 2.0**100


def inverse_distances(apart: Tensor, dim: int) -> Tensor:
    """1/2d' of centres that are ``apart``, scaled float64; 0 for those that (nearly) coincide."""
    inverse = 0.5 / (apart * (1 + (dim + 8) * 2.0**-52))
    return inverse.masked_fill(inverse > _LARGEST_INVERSE, 0.0)


def code_margins(to_j: Tensor, to_own: Tensor, inverse: Tensor, dim: int) -> Tensor:
    """What h[j, g] is the minimum of over the codes of g, rounded down; float64.

    Args:
        to_j: (codes, G), |c - m_j|, scaled; off by less than (D + 8) 2^-53 of itself.
        to_own: (codes, 1), the distance to the centre of the code's own cell g.
        inverse: (codes, G), ``inverse_distances`` of m_j and m_g.
    """
    total = to_j + to_own
    margin = (to_j - to_own) * total * inverse
    margin -= (dim + 16) * 2.0**-52 * total.square() * inverse
    margin -= margin.abs() * 2.0**-21
    return margin.masked_fill(inverse == 0, -torch.inf)


@triton.jit
def reach(score, scale):
    """Above the distance whose square is ``score``, float64: scaled, float32."""
    distance = tl.sqrt(score) * scale.to(tl.float64) * (1 + 2.0**-36)
    return distance.to(tl.float32) * (1 + 2.0**-22) + 2.0**-120


@triton.jit
def out_of_reach(margin, inverse, square, home_square, reached, dim):
    """Whether no code of a cell can be nearest; a NaN says no."""
    error = (square + home_square) * (4 * (dim + 8) * 2.0**-24) + dim * 2.0**-124
    return margin + inverse * ((square - home_square) - error) > reached


@triton.jit
def squares(
    x_row, dim_stride, vectors_ptr, column, num_columns, dim, scale,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """|x - v|^2 in float32, scaled, of rows (ROWS,) and columns (COLUMNS,) of a (D, V) matrix.

    The loads have no masks, which would cost as much as the arithmetic: all rows must be readable.
    """
    column = tl.minimum(column, num_columns - 1)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for i in range(0, dim):
        i = tl.cast(i, tl.int64)
        x = tl.load(x_row + i * dim_stride).to(tl.float32) * scale
        v = tl.load(vectors_ptr + i * num_columns + column) * scale
        t = x[:, None] - v[None, :]
        total = tl.fma(t, t, total)
    return total
