"""normalize_codes in Triton: the bits of ``ops.normalize_codes.in_torch``.

float64 division and square root are correctly rounded on the device, as IEEE 754 has them; the sum
of squares runs with one code per lane, i ascending, without fused multiply-adds.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vqkernels.backends.triton._tiles import tile_of_length

_AHEAD = 8  # loads in flight while the sum, which cannot be reordered, catches up


@triton.jit(do_not_specialize=["num_codes"])
def _normalize_codes_kernel(
    codes_ptr,  # (K, D) through strides, fp32 | fp16 | bf16
    unit_ptr,  # (K, D) contiguous, fp32; may be codes_ptr
    norms_ptr,  # (K,) fp64 | None
    due_ptr,  # () int64 | None: nothing happens where it is 0
    frozen_ptr,  # (K,) int64 | None: nothing happens to these codes
    num_codes,
    dim,
    code_stride,
    dim_stride,
    AHEAD: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    code = tl.program_id(0).to(tl.int64) * BLOCK_K + tl.arange(0, BLOCK_K)
    code_ok = code < num_codes
    if due_ptr is not None:
        code_ok = code_ok & (tl.load(due_ptr) != 0)
    if frozen_ptr is not None:
        code_ok = code_ok & (tl.load(frozen_ptr + code, mask=code_ok, other=0) == 0)
    row = codes_ptr + code * code_stride
    total = tl.zeros((BLOCK_K,), tl.float64)
    element = row
    for start in range(0, dim, AHEAD):
        for ahead in tl.static_range(AHEAD):
            value = tl.load(element, mask=code_ok & (start + ahead < dim), other=0.0)
            value = value.to(tl.float32).to(tl.float64)
            total = total + value * value
            element += dim_stride
    tl.debug_barrier()  # unit may be codes: every thread has its norms before one writes
    norm = tl.sqrt(total)
    if norms_ptr is not None:
        tl.store(norms_ptr + code, norm, mask=code_ok)
    divisor = tl.where(norm == 0, 1.0, norm)
    for start in range(0, dim, BLOCK_D):
        column = start + tl.arange(0, BLOCK_D).to(tl.int64)
        inside = code_ok[:, None] & (column < dim)[None, :]
        value = tl.load(row[:, None] + column[None, :] * dim_stride, mask=inside, other=0.0)
        value = value.to(tl.float32).to(tl.float64) / divisor[:, None]
        at = unit_ptr + (code[:, None] * dim + column[None, :])
        tl.store(at, value.to(tl.float32), mask=inside)


def write_normalized(
    codes: Tensor,
    unit: Tensor,
    norms: Tensor | None = None,
    due: Tensor | None = None,
    frozen: Tensor | None = None,
) -> None:
    """Writes c/|c|, and |c| if asked for; nothing where the scalar ``due`` is 0, and nothing of
    codes that ``frozen`` marks.
    """
    k, dim = codes.shape
    block_k, block_d = tile_of_length(dim)
    with torch.cuda.device_of(codes):
        _normalize_codes_kernel[(triton.cdiv(k, block_k),)](
            codes,
            unit,
            norms,
            due,
            frozen,
            k,
            dim,
            *codes.stride(),
            AHEAD=_AHEAD,
            BLOCK_K=block_k,
            BLOCK_D=block_d,
            enable_fp_fusion=False,
        )


def normalize_codes(codebook: Tensor) -> tuple[Tensor, Tensor]:
    """c/|c| (float32; zero stays zero) and the norms, (K, 1) float64."""
    unit = codebook.new_empty(codebook.shape, dtype=torch.float32)
    norms = codebook.new_empty((codebook.shape[0], 1), dtype=torch.float64)
    write_normalized(codebook, unit, norms)
    return unit, norms
