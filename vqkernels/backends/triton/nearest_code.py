"""nearest_code in Triton: the canonical float64 score of every pair, no screen.

Exact by construction: the score is evaluated as ``reference`` defines it, i ascending, with
floating-point fusion switched off so that multiply and add round separately. A screen on the
matrix units will come before it; this kernel then finishes what the screen leaves open.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vqkernels._layout import row_shape
from vqkernels.backends.triton._rows import row_layout, row_offsets

_BLOCK_N = 32
_BLOCK_K = 64


@triton.jit
def _nearest_code_kernel(
    x_ptr,  # (N, D) through strides, fp32 | fp16 | bf16
    codebook_ptr,  # (K, D) contiguous, fp32 | fp16 | bf16
    indices_ptr,  # (N,) int64
    distances_ptr,  # (N,) fp32
    num_rows,
    num_codes,
    dim,
    size1,
    size2,
    size3,
    stride0,
    stride1,
    stride2,
    stride3,
    dim_stride,
    IS_L2: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    row_ok = row < num_rows
    x_row = x_ptr + row_offsets(row, size1, size2, size3, stride0, stride1, stride2, stride3)

    best = tl.full((BLOCK_N,), float("inf"), tl.float64)
    best_code = tl.zeros((BLOCK_N,), tl.int64)
    for start in range(0, num_codes, BLOCK_K):
        code = start + tl.arange(0, BLOCK_K).to(tl.int64)
        code_ok = code < num_codes
        c_row = codebook_ptr + code * dim
        score = tl.zeros((BLOCK_N, BLOCK_K), tl.float64)
        for i in range(0, dim):
            x = tl.load(x_row + i * dim_stride, mask=row_ok, other=0.0)
            c = tl.load(c_row + i, mask=code_ok, other=0.0)
            x = x.to(tl.float32).to(tl.float64)[:, None]
            c = c.to(tl.float32).to(tl.float64)[None, :]
            if IS_L2:
                t = x - c
                score = score + t * t
            else:
                score = score - x * c
        # NaN fails the comparison too: a non-finite row or code never scores below infinity.
        usable = (tl.abs(score) < float("inf")) & code_ok[None, :]
        score = tl.where(usable, score, float("inf"))
        lowest = tl.min(score, axis=1)
        attained = tl.where(score == lowest[:, None], code[None, :], num_codes)
        candidate = tl.min(attained, axis=1)
        better = lowest < best
        best_code = tl.where(better, candidate, best_code)
        best = tl.where(better, lowest, best)

    found = best < float("inf")
    distance = best if IS_L2 else -best
    distance = tl.where(found, distance, float("nan")).to(tl.float32)
    tl.store(indices_ptr + row, best_code, mask=row_ok)
    tl.store(distances_ptr + row, distance, mask=row_ok)


def nearest_code(
    x: Tensor, codebook: Tensor, metric: str, channel_dim: int
) -> tuple[Tensor, Tensor]:
    """Indices (int64) and scores (float32) of the best code for every position of x."""
    shape = row_shape(x, channel_dim)
    indices = x.new_empty(shape, dtype=torch.int64)
    distances = x.new_empty(shape, dtype=torch.float32)
    if indices.numel() == 0:
        return indices, distances
    x, layout = row_layout(x, channel_dim)
    with torch.cuda.device_of(x):
        _nearest_code_kernel[(triton.cdiv(indices.numel(), _BLOCK_N),)](
            x,
            codebook.contiguous(),
            indices,
            distances,
            indices.numel(),
            codebook.shape[0],
            codebook.shape[1],
            *layout,
            IS_L2=metric == "l2",
            BLOCK_N=_BLOCK_N,
            BLOCK_K=_BLOCK_K,
            enable_fp_fusion=False,
        )
    return indices, distances
