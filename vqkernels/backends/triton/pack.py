"""The codebook as the screen reads it: split into fp16, permuted, with the lanes of its bounds.

Two launches: ``_survey`` adds up the codes and finds their extremes, ``_pack`` derives centre and
scales from these and writes the codes. The terms are those of ``bound``.
"""

from __future__ import annotations

import dataclasses

import torch
import triton
import triton.language as tl
from torch import Tensor

from vqkernels.backends.triton.bound import (
    SLACK,
    code_lanes,
    exponent_of_double,
    half_above,
    power_of_two_double,
    split_half,
)
from vqkernels.backends.triton.plan import SLOTS, Plan

_SURVEYS = 32  # at most so many programs share the survey
_CODES = 16  # per program of the packing, and looked at for b_0
_DIMS = 64
_SCALARS = 4  # q, t, and the norm and bias of b_0


@dataclasses.dataclass(frozen=True)
class Packed:
    """A codebook made ready for ``plan``, on the device.

    Attributes:
        plan: the layout.
        alpha: ``bound.accumulation_error`` of the device's matrix unit, for this layout.
        codes: (positions, 2, width) fp16, high and low; (0,) when the lanes hold them.
        lanes: (positions, lane columns) fp16.
        centre: (D,) float32, mu.
        scalars: (4,) float32: q, t, and the two factors of the shift.
    """

    plan: Plan
    alpha: float
    codes: Tensor
    lanes: Tensor
    centre: Tensor
    scalars: Tensor


@triton.jit
def _survey(
    wanted_ptr,  # () int32 or None: 0 where nothing is to be done
    codebook_ptr,  # (K, D)
    partial_ptr,  # (programs, 3, D) float64: sums, smallest, largest; of finite components
    num_codes,
    dim,
    share,  # codes per program
    CODES: tl.constexpr,
    DIMS: tl.constexpr,
):
    if wanted_ptr is not None and tl.load(wanted_ptr) == 0:
        return
    first = tl.program_id(0).to(tl.int64) * share
    last = tl.minimum(first + share, num_codes)
    d = tl.program_id(1) * DIMS + tl.arange(0, DIMS)
    total = tl.zeros((DIMS,), tl.float64)
    smallest = tl.full((DIMS,), float("inf"), tl.float32)
    largest = tl.full((DIMS,), float("-inf"), tl.float32)
    for start in range(first, last, CODES):
        code = tl.cast(start, tl.int64) + tl.arange(0, CODES)
        inside = (code < last)[:, None] & (d < dim)[None, :]
        c = tl.load(codebook_ptr + code[:, None] * dim + d[None, :], mask=inside, other=0.0)
        c = c.to(tl.float32)
        inside &= tl.abs(c) < float("inf")
        total += tl.sum(tl.where(inside, c, 0.0).to(tl.float64), axis=0)
        smallest = tl.minimum(smallest, tl.min(tl.where(inside, c, float("inf")), axis=0))
        largest = tl.maximum(largest, tl.max(tl.where(inside, c, float("-inf")), axis=0))
    out = partial_ptr + tl.program_id(0) * 3 * dim + d
    tl.store(out, total, mask=d < dim)
    tl.store(out + dim, smallest.to(tl.float64), mask=d < dim)
    tl.store(out + 2 * dim, largest.to(tl.float64), mask=d < dim)


@triton.jit
def _centre_of(
    partial_ptr, d, dim, num_codes, surveys, CENTRED: tl.constexpr, SURVEYS: tl.constexpr
):
    """mu and the largest |c - mu| of some channels, float64; (0, 0) beyond the last one."""
    survey = tl.arange(0, SURVEYS)
    at = partial_ptr + survey[:, None] * (3 * dim) + d[None, :]
    inside = (survey < surveys)[:, None] & (d < dim)[None, :]
    total = tl.sum(tl.load(at, mask=inside, other=0.0), axis=0)
    smallest = tl.min(tl.load(at + dim, mask=inside, other=float("inf")), axis=0)
    largest = tl.max(tl.load(at + 2 * dim, mask=inside, other=float("-inf")), axis=0)
    any_finite = smallest <= largest
    mean = tl.zeros_like(total)
    if CENTRED:
        mean = tl.where(any_finite, total / num_codes, 0.0).to(tl.float32).to(tl.float64)
    reach = tl.maximum(largest - mean, mean - smallest)
    return mean, tl.where(any_finite, reach, 0.0)


@triton.jit
def _position(
    code, GROUP: tl.constexpr, PER_TILE: tl.constexpr, FOLDS: tl.constexpr,
    TILES: tl.constexpr, BLOCK_CODES: tl.constexpr, SLOT_COUNT: tl.constexpr,
):  # fmt: skip
    """Where a code is packed: ``plan.positions``."""
    group, element = code // GROUP, code % GROUP
    slot, order = group % SLOT_COUNT, group // SLOT_COUNT
    step, fold = order // FOLDS, order % FOLDS
    tile, inside = element // PER_TILE, element % PER_TILE
    column = (fold * (PER_TILE // 2) + inside // 2) * 8 + slot * 2 + inside % 2
    return (step * TILES + tile) * BLOCK_CODES + column


@triton.jit
def _pack(
    wanted_ptr,  # () int32 or None
    codebook_ptr,  # (K, D)
    partial_ptr,  # (surveys, 3, D) float64
    codes_ptr,  # (positions, 2, WIDTH) fp16, out; unused when PACKED
    lanes_ptr,  # (positions, LANES) fp16, out
    centre_ptr,  # (D,) float32, out
    scalars_ptr,  # (4,) float32, out
    num_codes,
    dim,
    surveys,
    alpha,
    PACKED: tl.constexpr,
    CENTRED: tl.constexpr,
    L2: tl.constexpr,
    WIDTH: tl.constexpr,
    LANES: tl.constexpr,
    GROUP: tl.constexpr,
    FOLDS: tl.constexpr,
    TILES: tl.constexpr,
    BLOCK_CODES: tl.constexpr,
    SLOT_COUNT: tl.constexpr,
    SURVEYS: tl.constexpr,
    CODES: tl.constexpr,
    DIMS: tl.constexpr,
):
    if wanted_ptr is not None and tl.load(wanted_ptr) == 0:
        return
    code = tl.program_id(0).to(tl.int64) * CODES + tl.arange(0, CODES)
    early = tl.arange(0, CODES).to(tl.int64)  # candidates for b_0
    column = tl.arange(0, DIMS)

    # Scales, and which codes are finite.
    reach = tl.zeros((), tl.float64)
    reach_square = tl.zeros((), tl.float64)
    early_square = tl.zeros((CODES,), tl.float64)
    usable = code < num_codes
    for start in range(0, dim, DIMS):
        d = start + column
        mean, span = _centre_of(partial_ptr, d, dim, num_codes, surveys, CENTRED, SURVEYS)
        reach = tl.maximum(reach, tl.max(span, axis=0))
        reach_square += tl.sum(span * span, axis=0)
        if tl.program_id(0) == 0:
            tl.store(centre_ptr + d, mean.to(tl.float32), mask=d < dim)
        inside = (code < num_codes)[:, None] & (d < dim)[None, :]
        c = tl.load(codebook_ptr + code[:, None] * dim + d[None, :], mask=inside, other=0.0)
        finite = tl.abs(c.to(tl.float32)) < float("inf")
        usable &= tl.min(finite.to(tl.int32), axis=1) == 1
        inside = (early < num_codes)[:, None] & (d < dim)[None, :]
        c = tl.load(codebook_ptr + early[:, None] * dim + d[None, :], mask=inside, other=0.0)
        b = tl.where(inside, c.to(tl.float32).to(tl.float64) - mean[None, :], 0.0)
        early_square += tl.sum(b * b, axis=1)
    # NaN and infinity fail the comparison; then any code is as near as the farthest may be.
    first = (early < num_codes) & (early_square < float("inf"))
    near = tl.min(tl.where(first, early_square, float("inf")), axis=0)
    near = tl.where(near < float("inf"), near, reach_square)
    q = 7 - exponent_of_double(reach)
    t = 400  # without a bias lam has to be 0: it would only keep small rows small
    if L2:
        t = 14 - exponent_of_double(reach_square * 0.5)
    q = tl.where(reach > 0, q, 0)
    t = tl.where(reach > 0, t, 0)
    scale = power_of_two_double(q)
    near_norm = tl.sqrt(near) * scale + 2.0**-6
    shift_norm = half_above(near_norm.to(tl.float32))
    shift_bias = tl.zeros((), tl.float16)
    if L2:
        shift_bias = half_above((near * 0.5 * power_of_two_double(t)).to(tl.float32))
    if tl.program_id(0) == 0:
        tl.store(scalars_ptr, q.to(tl.float32))
        tl.store(scalars_ptr + 1, t.to(tl.float32))
        tl.store(scalars_ptr + 2, shift_norm.to(tl.float32))
        tl.store(scalars_ptr + 3, shift_bias.to(tl.float32))

    at = _position(code, GROUP, GROUP // TILES, FOLDS, TILES, BLOCK_CODES, SLOT_COUNT)
    square = tl.zeros((CODES,), tl.float64)
    h_square = tl.zeros((CODES,), tl.float64)
    t_square = tl.zeros((CODES,), tl.float64)
    left_square = tl.zeros((CODES,), tl.float64)
    for start in range(0, WIDTH, DIMS):
        d = start + column
        inside = usable[:, None] & (d < dim)[None, :]
        mean, _ = _centre_of(partial_ptr, d, dim, num_codes, surveys, CENTRED, SURVEYS)
        c = tl.load(codebook_ptr + code[:, None] * dim + d[None, :], mask=inside, other=0.0)
        b = tl.where(inside, (c.to(tl.float32).to(tl.float64) - mean[None, :]) * scale, 0.0)
        high, left = split_half(b)
        h_square += tl.sum(high.to(tl.float64) * high.to(tl.float64), axis=1)
        t_square += tl.sum(left * left, axis=1)
        square += tl.sum(b * b, axis=1)
        low, left = split_half(left)
        left_square += tl.sum(left * left, axis=1)
        if PACKED:
            out = lanes_ptr + at[:, None] * LANES + d[None, :]
            tl.store(out, high, mask=(d < dim)[None, :])
            tl.store(out + dim, low, mask=(d < dim)[None, :])
            tl.store(out + 2 * dim, high, mask=(d < dim)[None, :])
        else:
            out = codes_ptr + at[:, None] * (2 * WIDTH) + d[None, :]
            tl.store(out, high, mask=(d < WIDTH)[None, :])
            tl.store(out + WIDTH, low, mask=(d < WIDTH)[None, :])

    up = 1 + 2.0**-40  # over the float64 roundings of the sums
    margin = tl.cast(alpha, tl.float64) * SLACK  # 1 - margin in float32 would round it away
    rounding = margin * tl.sqrt(square) * up
    bias = tl.zeros((CODES,), tl.float64)
    if L2:
        unscaled = square * 0.5 * power_of_two_double(-2 * q)
        bias = unscaled * power_of_two_double(t) * ((1 - margin) / up)
    lane = tl.arange(0, LANES)
    lanes = code_lanes(
        lane[None, :],
        usable[:, None],
        -bias[:, None],
        rounding[:, None],
        tl.sqrt(left_square)[:, None] * up,
        tl.sqrt(h_square)[:, None] * up,
        tl.sqrt(t_square)[:, None] * up,
        shift_norm,
        shift_bias,
    )
    if PACKED:
        free = (lane < LANES - 3 * dim)[None, :]
        tl.store(lanes_ptr + at[:, None] * LANES + 3 * dim + lane[None, :], lanes, mask=free)
    else:
        tl.store(lanes_ptr + at[:, None] * LANES + lane[None, :], lanes)


def pack(
    codebook: Tensor, plan: Plan, metric: str, alpha: float, wanted: Tensor | None = None
) -> Packed:
    """Packs a contiguous (K, D) codebook, unless ``wanted``, () int32, is there and 0."""
    k, d = codebook.shape
    share = max(256, -(-k // _SURVEYS))
    surveys = -(-k // share)
    padded = plan.steps(k) * plan.step_codes
    partial = codebook.new_empty((surveys, 3, d), dtype=torch.float64)
    packed = Packed(
        plan,
        alpha,
        codebook.new_empty((0,) if plan.packed else (padded, 2, plan.width), dtype=torch.float16),
        codebook.new_empty((padded, plan.lanes), dtype=torch.float16),
        codebook.new_empty(d, dtype=torch.float32),
        codebook.new_empty(_SCALARS, dtype=torch.float32),
    )
    with torch.cuda.device_of(codebook):
        _survey[(surveys, -(-d // _DIMS))](
            wanted, codebook, partial, k, d, share, CODES=_CODES, DIMS=_DIMS
        )
        _pack[(padded // _CODES,)](
            wanted,
            codebook,
            partial,
            packed.codes,
            packed.lanes,
            packed.centre,
            packed.scalars,
            k,
            d,
            surveys,
            alpha,
            PACKED=plan.packed,
            CENTRED=plan.centred,
            L2=metric == "l2",
            WIDTH=plan.width,
            LANES=plan.lanes,
            GROUP=plan.group,
            FOLDS=plan.folds,
            TILES=plan.tiles,
            BLOCK_CODES=plan.block_codes,
            SLOT_COUNT=SLOTS,
            SURVEYS=_SURVEYS,
            CODES=_CODES,
            DIMS=_DIMS,
            enable_fp_fusion=False,
        )
    return packed
