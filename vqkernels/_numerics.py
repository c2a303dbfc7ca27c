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


def fixed_sum(values: Tensor) -> Tensor:
    """Sum of a vector by blocks of 1024.

    ``Tensor.sum`` splits a long vector among the threads, so its bits follow their number.
    """
    padded = F.pad(values, (0, -values.numel() % 1024))
    return padded.reshape(-1, 1024).sum(dim=1).sum()


def row_norm(rows: Tensor) -> Tensor:
    """(N, 1) Euclidean norms of the rows."""
    return rows.square().sum(dim=1, keepdim=True).sqrt()


def unit_rows(rows: Tensor) -> Tensor:
    """x / max(|x|, 1e-12) for every row."""
    return rows / row_norm(rows).clamp(min=TINY)
