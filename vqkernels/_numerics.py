"""Arithmetic that several layers share and that must not depend on the thread count."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

TINY = 1e-12  # a vector shorter than this has no direction


def wide(*dtypes: torch.dtype) -> torch.dtype:
    """float64 when one of the dtypes is, else float32: what statistics and losses come in."""
    return torch.float64 if torch.float64 in dtypes else torch.float32


def upcast(values: Tensor) -> Tensor:
    """float64 of any float, bit for bit.

    ``Tensor.double`` reads a denormal as zero after ``torch.set_flush_denormal(True)``; its bits
    do not lie.
    """
    if values.dtype not in (torch.float32, torch.bfloat16):
        return values.double()
    values = values.float()
    bits = values.view(torch.int32)
    small = (bits & 0x7FFFFFFF).double() * 2.0**-149
    denormal = torch.where(bits < 0, -small, small)
    return torch.where((bits & 0x7F800000) == 0, denormal, values.double())


def rounded_sqrt(values: Tensor) -> Tensor:
    """Square roots of float64 values, correctly rounded.

    torch's CPU form may come from a vendor library that is off by one unit in one of a hundred
    values; its complex form comes from the C library, which is exact for real arguments.
    """
    if not values.is_cpu:
        return values.sqrt()
    return torch.complex(values, torch.zeros_like(values)).sqrt().real


def fixed_sum(values: Tensor) -> Tensor:
    """Sum of a vector as a binary tree: the second half is added to the first until one is left.

    ``Tensor.sum`` splits a long vector among the threads, so its bits follow their number, and
    nothing but torch could repeat them.
    """
    half = 1 << max(values.numel() - 1, 0).bit_length()
    values = F.pad(values, (0, half - values.numel()))
    while half > 1:
        half //= 2
        values = values[:half] + values[half:]
    return values.squeeze(0)


def sum_of_many(values: Tensor) -> Tensor:
    """Sum of a vector of any traced length, the same bits at any thread count up to 2^23 values.

    In two steps: torch splits only what has one result and 2^15 terms among the threads. The extra
    256 zeros make the steps at least two, because the compiler treats a size of 1 apart.
    """
    return F.pad(values, (0, 256 + -values.shape[0] % 256)).reshape(-1, 256).sum(dim=1).sum()


def row_norm(rows: Tensor) -> Tensor:
    """(N, 1) Euclidean norms of the rows."""
    return rows.square().sum(dim=1, keepdim=True).sqrt()


def unit_rows(rows: Tensor) -> Tensor:
    """x / max(|x|, 1e-12) for every row."""
    return rows / row_norm(rows).clamp(min=TINY)


_LOW_32 = 0xFFFFFFFF


def mix32(value: Tensor) -> Tensor:
    """The integer finalizer "lowbias32" (Wellons, hash-prospector) of int64 values.

    It takes the low 32 bits and returns int64 in [0, 2^32); products wrap.
    """
    value = value & _LOW_32
    value = ((value ^ (value >> 16)) * 0x7FEB352D) & _LOW_32
    value = ((value ^ (value >> 15)) * 0x846CA68B) & _LOW_32
    return value ^ (value >> 16)
