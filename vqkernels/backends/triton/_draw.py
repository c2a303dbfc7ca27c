"""Which rows a sample takes: ``ops.sample_rows.drawn_positions`` in Triton, the same integers."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from vqkernels._layout import row_shape
from vqkernels.backends.triton._layouts import joint_layout, row_start, split_row
from vqkernels.backends.triton._row_facts import row_facts
from vqkernels.backends.triton._runs import lower_bound
from vqkernels.backends.triton._tiles import tile_of_length

_UNUSABLE = tl.constexpr(1 << 32)  # above every hash: such rows sort to the end


@triton.jit
def _mix(value):
    """The integer finalizer "lowbias32" of ``ops._hash``, on uint32."""
    value = (value ^ (value >> 16)) * 0x7FEB352D
    value = (value ^ (value >> 15)) * 0x846CA68B
    return value ^ (value >> 16)


@triton.jit
def _hash32(counter, clock, seed):
    """``ops._hash.hash32`` as int64; all three are uint32."""
    return _mix(_mix(_mix(seed) + clock) + counter).to(tl.int64)


@triton.jit(do_not_specialize=["num_rows", "count", "seed", "steps"])
def _draw_kernel(
    x_ptr,  # (N, D) through strides, fp32 | fp16 | bf16
    running_ptr,  # (N,) int64, how many rows up to here are not masked | None
    clock_ptr,  # () int64
    positions_ptr,  # (count,) int64
    keys_ptr,  # (count,) int64: a hash, plus UNUSABLE where the row is
    num_rows,
    dim,
    count,
    seed,
    steps,
    size1,
    size2,
    size3,
    stride0,
    stride1,
    stride2,
    stride3,
    dim_stride,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    slot = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    slot_ok = slot < count
    counter, clock = slot.to(tl.uint32), tl.load(clock_ptr).to(tl.uint32)
    total = slot * 0 + num_rows
    if running_ptr is not None:
        total = slot * 0 + tl.load(running_ptr + num_rows - 1)
    low = slot * total // count
    width = tl.maximum((slot + 1) * total // count - low, 1)
    drawn = low + _hash32(counter, clock, seed.to(tl.uint32)) % width
    position = tl.where(total < count, slot % tl.maximum(total, 1), drawn)
    if running_ptr is not None:
        position = lower_bound(running_ptr, num_rows, position + 1, steps)
        position = tl.minimum(position, num_rows - 1)
    i0, i1, i2, i3 = split_row(position, size1, size2, size3)
    x_row = x_ptr + row_start(i0, i1, i2, i3, stride0, stride1, stride2, stride3)
    finite, _ = row_facts(x_row, slot_ok, dim, dim_stride, BLOCK_N, BLOCK_D)
    key = _hash32(counter, clock, seed.to(tl.uint32) + 1)
    key = tl.where((slot < total) & finite, key, key + _UNUSABLE)
    tl.store(positions_ptr + slot, position, mask=slot_ok)
    tl.store(keys_ptr + slot, key, mask=slot_ok)


@triton.jit
def sampled_rows(positions_ptr, keys_ptr, order_ptr, slot, slot_ok, count, steps):
    """Row numbers of the sample by slot, usable ones first and then again; and how many are."""
    one = tl.zeros((1,), tl.int64)
    found = tl.sum(lower_bound(keys_ptr, count, one + _UNUSABLE, steps), axis=0)
    source = slot % tl.maximum(found, 1)
    place = tl.load(order_ptr + source, mask=slot_ok, other=0)
    return tl.load(positions_ptr + place, mask=slot_ok, other=0), found


class Draw(NamedTuple):
    """What ``sampled_rows`` reads, all (count,) int64."""

    positions: Tensor
    keys: Tensor  # ascending
    order: Tensor


def draw(
    x: Tensor, mask: Tensor | None, clock: Tensor, count: int, seed: int, channel_dim: int
) -> Draw:
    """Draws for at least one position of x, whose ``joint_layout`` exists."""
    dim, n = x.shape[channel_dim], 1
    for size in row_shape(x, channel_dim):
        n *= size
    running = None if mask is None else mask.reshape(-1).cumsum(0)
    positions = torch.empty(count, dtype=torch.int64, device=x.device)
    keys = torch.empty_like(positions)
    block_n, block_d = tile_of_length(dim)
    with torch.cuda.device_of(x):
        _draw_kernel[(triton.cdiv(count, block_n),)](
            x,
            running,
            clock,
            positions,
            keys,
            n,
            dim,
            count,
            seed & 0xFFFFFFFF,
            n.bit_length(),
            *joint_layout(channel_dim, x),
            BLOCK_N=block_n,
            BLOCK_D=block_d,
        )
    return Draw(positions, *torch.sort(keys, stable=True))
