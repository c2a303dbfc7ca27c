"""lookup in Triton: codes back to vectors, laid out as asked."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vqkernels.backends.triton._layouts import joint_layout, row_start, split_row
from vqkernels.backends.triton._tiles import tile


@triton.jit(do_not_specialize=["num_rows", "num_codes"])
def _lookup_kernel(
    indices_ptr,  # (N,) any integer, through a stride
    codebook_ptr,  # (K, D) through strides, fp32 | fp16 | bf16
    out_ptr,  # (N, D) through strides, as the codebook
    num_rows,
    num_codes,
    dim,
    index_stride,
    code_stride,
    code_dim_stride,
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
    row = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    column = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D).to(tl.int64)
    row_ok = row < num_rows
    column_ok = (column < dim)[None, :]
    index = tl.load(indices_ptr + row * index_stride, mask=row_ok, other=0).to(tl.int64)
    known = row_ok & (index >= 0) & (index < num_codes)
    at = codebook_ptr + (index[:, None] * code_stride + column[None, :] * code_dim_stride)
    value = tl.load(at, mask=known[:, None] & column_ok, other=0.0).to(tl.float32)
    nothing = tl.where(index == -1, 0.0, float("nan"))
    value = tl.where(known[:, None], value, nothing[:, None])
    i0, i1, i2, i3 = split_row(row, size1, size2, size3)
    start = row_start(i0, i1, i2, i3, stride0, stride1, stride2, stride3)
    at = out_ptr + (start[:, None] + column[None, :] * dim_stride)
    tl.store(at, value.to(out_ptr.dtype.element_ty), mask=row_ok[:, None] & column_ok)


def lookup(indices: Tensor, codebook: Tensor, channel_dim: int) -> Tensor:
    """Rows of the codebook along ``channel_dim``; index -1 gives zeros, a bad one NaN."""
    k, dim = codebook.shape
    out = codebook.new_empty((*indices.shape[:channel_dim], dim, *indices.shape[channel_dim:]))
    flat = indices.reshape(-1)
    block_n, block_d = tile(out, channel_dim)
    grid = (triton.cdiv(flat.numel(), block_n), triton.cdiv(dim, block_d))
    with torch.cuda.device_of(codebook):
        _lookup_kernel[grid](
            flat,
            codebook,
            out,
            flat.numel(),
            k,
            dim,
            flat.stride(0),
            *codebook.stride(),
            *joint_layout(channel_dim, out),  # contiguous: at most two row dimensions
            BLOCK_N=block_n,
            BLOCK_D=block_d,
        )
    return out
