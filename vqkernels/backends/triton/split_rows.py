"""The rows of x as the screen reads them: scaled, split into fp16, with the lanes of their bounds.

The terms are those of ``bound``. One read of x, through its strides, and O(N D) written.
"""

from __future__ import annotations

import dataclasses

import torch
import triton
import triton.language as tl
from torch import Tensor

from vqkernels.backends.triton._layouts import row_layout, row_offsets
from vqkernels.backends.triton.bound import (
    HUGE,
    bias_factor,
    half_above,
    row_exponent,
    row_lanes,
    scaled,
    split_half,
)
from vqkernels.backends.triton.pack import Packed

_ROWS = 32
_DIMS = 64


@dataclasses.dataclass(frozen=True)
class SplitRows:
    """N rows made ready for one ``Packed`` codebook.

    Attributes:
        parts: (N, 2, width) fp16, high and low; (0,) when the lanes hold them.
        lanes: one (N, lane columns) fp16 for each number of products that may be used.
        exponents: (N,) int32, p.
        norms: (N,) float32, X; infinite for a row that is left to the scan.
    """

    parts: Tensor
    lanes: dict[int, Tensor]
    exponents: Tensor
    norms: Tensor


@triton.jit
def _norm(square_sum):
    """fp16 above the root of a float32 sum of squares; also far above the sum's own rounding."""
    return half_above(tl.sqrt(square_sum))


@triton.jit(do_not_specialize=["num_rows"])
def _split_rows(
    wanted_ptr,  # () int32 or None: 0 where nothing is to be done
    x_ptr,  # (N, D) through strides
    centre_ptr,  # (D,) float32
    scalars_ptr,  # (4,) float32
    parts_ptr,  # (N, 2, WIDTH) fp16, out; unused when PACKED
    lanes_ptr,  # (N, LANES) fp16, out, for PRODUCTS
    one_lanes_ptr,  # (N, LANES) fp16, out, for one product; unused unless ONE_PRODUCT
    exponents_ptr,  # (N,) int32, out
    norms_ptr,  # (N,) float32, out
    num_rows,
    dim,
    size1,
    size2,
    size3,
    stride0,
    stride1,
    stride2,
    stride3,
    dim_stride,
    PACKED: tl.constexpr,
    PRODUCTS: tl.constexpr,
    ONE_PRODUCT: tl.constexpr,
    CENTRED: tl.constexpr,
    L2: tl.constexpr,
    WIDTH: tl.constexpr,
    LANES: tl.constexpr,
    ROWS: tl.constexpr,
    DIMS: tl.constexpr,
):
    if wanted_ptr is not None and tl.load(wanted_ptr) == 0:
        return
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = row < num_rows
    x_row = x_ptr + row_offsets(row, size1, size2, size3, stride0, stride1, stride2, stride3)
    column = tl.arange(0, DIMS)
    q, t = tl.load(scalars_ptr).to(tl.int32), tl.load(scalars_ptr + 1).to(tl.int32)

    largest = tl.zeros((ROWS,), tl.float32)
    screened = tl.full((ROWS,), 1, tl.int32)
    for start in range(0, dim, DIMS):
        d = start + column
        x = _centred(x_row, centre_ptr, d, dim, dim_stride, inside, CENTRED)
        largest = tl.maximum(largest, tl.max(tl.abs(x), axis=1))
        screened &= tl.min((tl.abs(x) <= HUGE).to(tl.int32), axis=1)
    # A zero row ties with every code under the cosine metric. One of denormals cannot be scaled to
    # where ``bound`` wants it.
    scalable = (largest >= 2.0**-126) | (L2 & (largest == 0))
    screened = (screened == 1) & scalable
    p = row_exponent(tl.where(screened, largest, 1.0), q, t)

    # 2^-20: rows that lam keeps small still have terms that fp16 rounds to its smallest quantum.
    x_square = tl.full((ROWS,), 2.0**-20, tl.float32)
    left_square = tl.zeros((ROWS,), tl.float32)
    lost_square = tl.zeros((ROWS,), tl.float32)
    for start in range(0, WIDTH, DIMS):
        d = start + column
        x = _centred(x_row, centre_ptr, d, dim, dim_stride, inside, CENTRED)
        z = scaled(tl.where(screened[:, None], x, 0.0), p[:, None])
        high, left = split_half(z)
        low, lost = split_half(left)
        rounding = tl.abs(z) * 2.0**-24 if CENTRED else tl.zeros_like(z)
        left, lost = tl.abs(left) + rounding, (tl.abs(lost) + rounding) * 256.0
        x_square += tl.sum(z * z, axis=1)
        left_square += tl.sum(left * left, axis=1)
        lost_square += tl.sum(lost * lost, axis=1)
        if PACKED:
            out = lanes_ptr + row[:, None] * LANES + d[None, :]
            stored = inside[:, None] & (d < dim)[None, :]
            tl.store(out, low, mask=stored)
            tl.store(out + dim, high, mask=stored)
            tl.store(out + 2 * dim, high, mask=stored)
        else:
            out = parts_ptr + row[:, None] * (2 * WIDTH) + d[None, :]
            stored = inside[:, None] & (d < WIDTH)[None, :]
            tl.store(out, high, mask=stored)
            if PRODUCTS == 3:
                tl.store(out + WIDTH, low, mask=stored)

    x_norm, left_norm = _norm(x_square), _norm(left_square)
    wide_left_norm = _norm(left_square * 65536.0)
    lam = bias_factor(p, q, t)
    lane = tl.arange(0, LANES)
    factors = row_lanes(
        lane[None, :],
        lam[:, None],
        x_norm[:, None],
        _norm(lost_square)[:, None],
        (left_norm if PRODUCTS == 3 else wide_left_norm)[:, None],
        PRODUCTS,
    )
    if PACKED:
        out = lanes_ptr + row[:, None] * LANES + 3 * dim + lane[None, :]
        tl.store(out, factors, mask=inside[:, None] & (lane < LANES - 3 * dim)[None, :])
    else:
        at = row[:, None] * LANES + lane[None, :]
        tl.store(lanes_ptr + at, factors, mask=inside[:, None])
        if ONE_PRODUCT:
            factors = row_lanes(
                lane[None, :],
                lam[:, None],
                x_norm[:, None],
                x_norm[:, None],
                wide_left_norm[:, None],
                1,
            )
            tl.store(one_lanes_ptr + at, factors, mask=inside[:, None])
    tl.store(exponents_ptr + row, p, mask=inside)
    norm = tl.where(screened, x_norm.to(tl.float32), float("inf"))
    tl.store(norms_ptr + row, norm, mask=inside)


@triton.jit
def _centred(x_row, centre_ptr, d, dim, dim_stride, inside, CENTRED: tl.constexpr):
    """fl(x - mu), (rows, channels); 0 outside of x."""
    real = d < dim
    at = x_row[:, None] + d[None, :].to(tl.int64) * dim_stride
    x = tl.load(at, mask=inside[:, None] & real[None, :], other=0.0).to(tl.float32)
    if CENTRED:
        mean = tl.load(centre_ptr + d, mask=real, other=0.0)[None, :]
        x = tl.where(inside[:, None], x - mean, 0.0)
    return x


def split_rows(
    x: Tensor,
    packed: Packed,
    metric: str,
    channel_dim: int,
    num_rows: int,
    wanted: Tensor | None = None,
) -> SplitRows:
    """Prepares the rows of x, ``num_rows`` of them, unless ``wanted`` is there and 0."""
    plan = packed.plan

    def empty(*shape: int, dtype: torch.dtype = torch.float16) -> Tensor:
        return x.new_empty(shape, dtype=dtype)

    parts = empty(0) if plan.packed else empty(num_rows, 2, plan.width)
    lanes = {products: empty(num_rows, plan.lanes) for products in plan.choices}
    rows = SplitRows(
        parts, lanes, empty(num_rows, dtype=torch.int32), empty(num_rows, dtype=torch.float32)
    )
    x, layout = row_layout(x, channel_dim)
    with torch.cuda.device_of(x):
        _split_rows[(triton.cdiv(num_rows, _ROWS),)](
            wanted,
            x,
            packed.centre,
            packed.scalars,
            parts,
            lanes[plan.choices[-1]],
            lanes[plan.choices[0]],
            rows.exponents,
            rows.norms,
            num_rows,
            packed.centre.numel(),
            *layout,
            PACKED=plan.packed,
            PRODUCTS=3 if plan.packed else plan.products,
            ONE_PRODUCT=len(plan.choices) > 1,
            CENTRED=plan.centred,
            L2=metric == "l2",
            WIDTH=plan.width,
            LANES=plan.lanes,
            ROWS=_ROWS,
            DIMS=_DIMS,
        )
    return rows
