"""The screen: upper bounds on the scores of all codes, reduced to a short list per row.

The matrix unit returns bounds (``bound``). Of every group of codes only the largest is kept, and
of the groups of a slot the best two and the maximum of the others. Nothing else leaves the kernel,
so its output has a fixed length per row. ``certify`` reads it.
"""

from __future__ import annotations

import dataclasses

import torch
import triton
import triton.language as tl
from torch import Tensor

from vqkernels.backends.triton.hardware import Hardware
from vqkernels.backends.triton.pack import Packed
from vqkernels.backends.triton.plan import SLOTS
from vqkernels.backends.triton.split_rows import SplitRows

_NONE = tl.constexpr(-(2**31))  # below every score, as an integer
_SLOTS = tl.constexpr(SLOTS)
NO_LIMIT = 2**31 - 1
KEPT = 2  # best groups that a slot keeps; of the others it keeps the maximum


@dataclasses.dataclass(frozen=True)
class Shortlist:
    """What the screen keeps of N rows, searched in ``splits`` parts of the codebook.

    Attributes:
        scores: (N, splits * 4, 2) int32, the bits of float32 bounds; negative: no such group.
        groups: (N, splits * 4, 2) int32, numbers of the groups they belong to.
        rest: (N, splits * 4) int32, the largest bound of the groups left out.
    """

    scores: Tensor
    groups: Tensor
    rest: Tensor


@triton.jit
def _group_maxima(scores, ROWS: tl.constexpr, CODES: tl.constexpr, FOLDS: tl.constexpr):
    """(ROWS, SLOTS, FOLDS) int32: the largest score of each group of a tile.

    A thread of the matrix unit's output holds columns 8 j + 2 slot and their right neighbours, so
    all of this stays inside one thread. As integers three values are compared at a time.
    """
    bits = scores.to(tl.int32, bitcast=True)
    bits = tl.reshape(bits, [ROWS, FOLDS, CODES // (8 * FOLDS), _SLOTS, 2])
    bits = tl.reshape(
        tl.permute(bits, (0, 3, 1, 2, 4)), [ROWS, _SLOTS, FOLDS, CODES // (4 * FOLDS)]
    )
    return tl.max(bits, axis=3)


@triton.jit
def _insert(score, group, score0, group0, score1, group1, rest):
    """The list after one more group: best, second, and the maximum of the others."""
    rest = tl.maximum(rest, tl.minimum(score1, score))
    first, second = score > score0, score > score1
    group1 = tl.where(first, group0, tl.where(second, group, group1))
    score1 = tl.maximum(score1, tl.minimum(score0, score))
    group0 = tl.where(first, group, group0)
    score0 = tl.maximum(score0, score)
    return score0, group0, score1, group1, rest


@triton.jit
def _insert_all(maxima, step, state, ROWS: tl.constexpr, FOLDS: tl.constexpr):
    """``_insert`` for the FOLDS groups of every slot."""
    if FOLDS == 1:
        state = _insert(tl.reshape(maxima, [ROWS, _SLOTS]), step, *state)
    elif FOLDS == 2:
        a, b = tl.split(maxima)
        state = _insert(a, step * 2, *state)
        state = _insert(b, step * 2 + 1, *state)
    else:
        even, odd = tl.split(tl.reshape(maxima, [ROWS, _SLOTS, 2, 2]))
        a, c = tl.split(even)
        b, d = tl.split(odd)
        state = _insert(a, step * 4, *state)
        state = _insert(b, step * 4 + 1, *state)
        state = _insert(c, step * 4 + 2, *state)
        state = _insert(d, step * 4 + 3, *state)
    return state


@triton.jit
def _empty_list(ROWS: tl.constexpr):
    none = tl.full((ROWS, _SLOTS), _NONE, tl.int32)
    group = tl.zeros((ROWS, _SLOTS), tl.int32)
    return none, group, none, group, none


@triton.jit
def _store_list(state, scores_ptr, groups_ptr, rest_ptr, row, num_rows):
    """Writes the lists of this split; group numbers become global ones."""
    score0, group0, score1, group1, rest = state
    slot = tl.arange(0, _SLOTS)[None, :]
    at = (row[:, None] * tl.num_programs(1) + tl.program_id(1)) * _SLOTS + slot
    inside = (row < num_rows)[:, None]
    tl.store(scores_ptr + at * 2, score0, mask=inside)
    tl.store(scores_ptr + at * 2 + 1, score1, mask=inside)
    tl.store(groups_ptr + at * 2, group0 * _SLOTS + slot, mask=inside)
    tl.store(groups_ptr + at * 2 + 1, group1 * _SLOTS + slot, mask=inside)
    tl.store(rest_ptr + at, rest, mask=inside)


@triton.jit
def _own_steps(num_steps):
    """The part of the codebook that this program searches: [first, last)."""
    share = tl.cdiv(num_steps, tl.num_programs(1))
    first = tl.program_id(1) * share
    return first, tl.minimum(first + share, num_steps)


@triton.jit(do_not_specialize=["num_rows", "num_steps", "limit"])
def _screen(
    wanted_ptr,  # () int32 or None: 0 where nothing is to be done
    difficulty_ptr,  # () int32: what the probe counted
    rows_ptr,  # (N, 2, WIDTH) fp16: parts of x; unused without PRODUCTS
    row_lanes_ptr,  # (N, LANES) fp16
    codes_ptr,  # (positions, 2, WIDTH) fp16; unused without PRODUCTS
    code_lanes_ptr,  # (positions, LANES) fp16
    scores_ptr,  # (N, splits * 4, 2) int32, out
    groups_ptr,  # (N, splits * 4, 2) int32, out
    rest_ptr,  # (N, splits * 4) int32, out
    num_rows,
    num_steps,
    limit,
    PRODUCTS: tl.constexpr,
    WIDTH: tl.constexpr,
    LANES: tl.constexpr,
    ROWS: tl.constexpr,
    CODES: tl.constexpr,
    TILES: tl.constexpr,
    FOLDS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """All parts of the rows stay where they are; the codes stream by.

    One product runs where the probe counted at most ``limit``, more run where it counted more.
    """
    if wanted_ptr is not None and tl.load(wanted_ptr) == 0:
        return
    if (tl.load(difficulty_ptr) <= limit) != (PRODUCTS <= 1):
        return
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = (row < num_rows)[:, None]
    d, lane, code = tl.arange(0, WIDTH), tl.arange(0, LANES), tl.arange(0, CODES)
    row_lanes = tl.load(row_lanes_ptr + row[:, None] * LANES + lane[None, :], mask=inside, other=0)
    if PRODUCTS > 0:
        part = rows_ptr + row[:, None] * (2 * WIDTH) + d[None, :]
        high = tl.load(part, mask=inside, other=0.0)
    if PRODUCTS == 3:
        low = tl.load(part + WIDTH, mask=inside, other=0.0)

    first, last = _own_steps(num_steps)
    lanes_at = code_lanes_ptr + lane[:, None] + code[None, :] * LANES
    codes_at = codes_ptr + d[:, None] + code[None, :] * (2 * WIDTH)
    state = _empty_list(ROWS)
    for step in tl.range(first, last, num_stages=STAGES):
        for tile in tl.static_range(TILES):
            start = (tl.cast(step, tl.int64) * TILES + tile) * CODES
            scores = tl.zeros((ROWS, CODES), tl.float32)
            if PRODUCTS > 0:
                code_high = tl.load(codes_at + start * (2 * WIDTH))
            if PRODUCTS == 3:
                scores = tl.dot(low, code_high, scores)
            if PRODUCTS > 1:
                code_low = tl.load(codes_at + start * (2 * WIDTH) + WIDTH)
                scores = tl.dot(high, code_low, scores)
            if PRODUCTS > 0:
                scores = tl.dot(high, code_high, scores)
            scores = tl.dot(row_lanes, tl.load(lanes_at + start * LANES), scores)
            tile_maxima = _group_maxima(scores, ROWS, CODES, FOLDS)
            if tile == 0:
                maxima = tile_maxima
            else:
                maxima = tl.maximum(maxima, tile_maxima)
        state = _insert_all(maxima, step, state, ROWS, FOLDS)
    _store_list(state, scores_ptr, groups_ptr, rest_ptr, row, num_rows)


@triton.jit(do_not_specialize=["num_rows", "num_steps", "limit"])
def _screen_in_chunks(
    wanted_ptr,  # () int32 or None
    difficulty_ptr,  # () int32
    rows_ptr,  # (N, 2, width) fp16
    row_lanes_ptr,  # (N, LANES) fp16
    codes_ptr,  # (positions, 2, width) fp16
    code_lanes_ptr,  # (positions, LANES) fp16
    scores_ptr,  # (N, splits * 4, 2) int32, out
    groups_ptr,  # (N, splits * 4, 2) int32, out
    rest_ptr,  # (N, splits * 4) int32, out
    num_rows,
    num_steps,
    limit,
    chunks,
    PRODUCTS: tl.constexpr,
    CHUNK: tl.constexpr,
    LANES: tl.constexpr,
    ROWS: tl.constexpr,
    CODES: tl.constexpr,
    FOLDS: tl.constexpr,
    STAGES: tl.constexpr,
    FLATTEN: tl.constexpr,
):
    """Rows too wide to stay: they stream by too, in chunks, in one loop over tiles and chunks."""
    if wanted_ptr is not None and tl.load(wanted_ptr) == 0:
        return
    if (tl.load(difficulty_ptr) <= limit) != (PRODUCTS <= 1):
        return
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = (row < num_rows)[:, None]
    d, lane, code = tl.arange(0, CHUNK), tl.arange(0, LANES), tl.arange(0, CODES)
    width = chunks * CHUNK
    row_lanes = tl.load(row_lanes_ptr + row[:, None] * LANES + lane[None, :], mask=inside, other=0)
    rows_at = rows_ptr + row[:, None] * (2 * width) + d[None, :]
    codes_at = codes_ptr + d[:, None] + code[None, :].to(tl.int64) * (2 * width)
    lanes_at = code_lanes_ptr + lane[:, None] + code[None, :] * LANES

    first, last = _own_steps(num_steps)
    state = _empty_list(ROWS)
    for step in tl.range(first, last, flatten=FLATTEN):
        start = tl.cast(step, tl.int64) * CODES
        scores = tl.zeros((ROWS, CODES), tl.float32)
        for chunk in tl.range(0, chunks, num_stages=STAGES):
            row_part = rows_at + chunk * CHUNK
            code_part = codes_at + start * (2 * width) + chunk * CHUNK
            high, code_high = tl.load(row_part, mask=inside, other=0.0), tl.load(code_part)
            if PRODUCTS == 3:
                low = tl.load(row_part + width, mask=inside, other=0.0)
                scores = tl.dot(low, code_high, scores)
            if PRODUCTS > 1:
                scores = tl.dot(high, tl.load(code_part + width), scores)
            scores = tl.dot(high, code_high, scores)
        scores = tl.dot(row_lanes, tl.load(lanes_at + start * LANES), scores)
        state = _insert_all(_group_maxima(scores, ROWS, CODES, FOLDS), step, state, ROWS, FOLDS)
    _store_list(state, scores_ptr, groups_ptr, rest_ptr, row, num_rows)


def screen(
    rows: SplitRows,
    packed: Packed,
    difficulty: Tensor,
    *,
    num_rows: int,
    num_codes: int,
    device: Hardware,
    products: int,
    limit: int,
    wanted: Tensor | None = None,
    into: Shortlist | None = None,
) -> Shortlist:
    """Screens the first ``num_rows`` rows with so many products, if the probe says so.

    Args:
        difficulty: () int32, what the probe counted, on the device.
        limit: up to it one product is enough; -1: never; ``NO_LIMIT``: whatever was counted.
        wanted: () int32 on the device; if it is there and 0, nothing is done.
        into: a list to write to, when another number of products may have written it.
    """
    plan = packed.plan

    def empty(*shape: int) -> Tensor:
        return rows.norms.new_empty(shape, dtype=torch.int32)

    splits = plan.splits(num_rows, num_codes, device)
    slots = splits * SLOTS
    out = into or Shortlist(
        empty(num_rows, slots, KEPT), empty(num_rows, slots, KEPT), empty(num_rows, slots)
    )
    arguments = (
        *(wanted, difficulty, rows.parts, rows.lanes[products], packed.codes, packed.lanes),
        *(out.scores, out.groups, out.rest, num_rows, plan.steps(num_codes), limit),
    )
    shape = {
        "PRODUCTS": products,
        "LANES": plan.lanes,
        "ROWS": plan.block_rows,
        "CODES": plan.block_codes,
        "FOLDS": plan.folds,
        "num_warps": plan.warps,
    }
    grid = (triton.cdiv(num_rows, plan.block_rows), splits)
    with torch.cuda.device_of(difficulty):
        if plan.resident(products, device):
            stages = 3 if plan.width <= 64 and products <= 1 else 2
            _screen[grid](
                *arguments,
                WIDTH=plan.width,
                TILES=plan.tiles,
                STAGES=stages,
                maxnreg=plan.registers,
                **shape,
            )
        else:
            chunk, stages = plan.chunks(products, device)
            _screen_in_chunks[grid](
                *arguments,
                plan.width // chunk,
                CHUNK=chunk,
                STAGES=stages,
                FLATTEN=not device.tensor_memory,  # Triton 3.7 cannot flatten the loop there
                **shape,
            )
    return out
