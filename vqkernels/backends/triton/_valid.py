"""The factor of a loss's gradient: how many elements its mean was taken over."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_PART = 4096


@triton.jit(do_not_specialize=["num_rows"])
def _count_valid_kernel(
    indices_ptr,  # (N,) any integer through a stride
    valid_ptr,  # (parts,) int32, indices that are not negative
    num_rows,
    index_stride,
    PART: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * PART + tl.arange(0, PART)
    index = tl.load(indices_ptr + row * index_stride, mask=row < num_rows, other=-1)
    tl.store(valid_ptr + tl.program_id(0), tl.sum((index >= 0).to(tl.int32), axis=0))


def count_valid(indices: Tensor | None, num_rows: int, device: torch.device) -> Tensor:
    """How many of the indices (N,) are not negative, part by part: ``loss_scale`` adds them.

    None stands for N valid ones.
    """
    if indices is None:
        return torch.full((1,), num_rows, dtype=torch.int32, device=device)
    valid = torch.empty(triton.cdiv(num_rows, _PART), dtype=torch.int32, device=device)
    with torch.cuda.device_of(indices):
        _count_valid_kernel[(valid.numel(),)](
            indices, valid, num_rows, indices.stride(0), PART=_PART
        )
    return valid


@triton.jit
def loss_scale(grad_loss_ptr, valid_ptr, num_parts, dim, BLOCK: tl.constexpr):
    """2 * grad_loss / (valid elements, at least 1), in float64."""
    rows = tl.zeros((BLOCK,), tl.int64)
    for start in range(0, num_parts, BLOCK):
        part = start + tl.arange(0, BLOCK)
        rows += tl.load(valid_ptr + part, mask=part < num_parts, other=0).to(tl.int64)
    elements = tl.maximum(tl.sum(rows, axis=0) * dim, 1).to(tl.float64)
    return tl.load(grad_loss_ptr).to(tl.float64) * 2.0 / elements
