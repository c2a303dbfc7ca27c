"""code_sums in Triton: sorted and deterministic, or by atomics when asked for by name."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vqkernels.backends.triton._layouts import joint_layout, row_start, split_row
from vqkernels.backends.triton._row_facts import row_keys
from vqkernels.backends.triton._run_sums import run_sums
from vqkernels.backends.triton._runs import find_runs
from vqkernels.backends.triton._tiles import tile


@triton.jit(do_not_specialize=["num_rows", "num_codes"])
def _atomic_sums_kernel(
    x_ptr,  # (N, D) through strides, fp32 | fp16 | bf16
    inverse_norms_ptr,  # (N,) fp64 | None
    keys_ptr,  # (N,) int16 | int32
    counts_ptr,  # (K,) int64, zeros
    sums_ptr,  # (K, D) fp32, zeros
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
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    row_ok = row < num_rows
    code = tl.load(keys_ptr + row, mask=row_ok, other=0).to(tl.int64)
    counted = row_ok & (code < num_codes)
    tl.atomic_add(counts_ptr + code, counted.to(tl.int64), mask=counted, sem="relaxed")
    i0, i1, i2, i3 = split_row(row, size1, size2, size3)
    x_row = x_ptr + row_start(i0, i1, i2, i3, stride0, stride1, stride2, stride3)
    for start in range(0, dim, BLOCK_D):
        column = start + tl.arange(0, BLOCK_D).to(tl.int64)
        inside = counted[:, None] & (column < dim)[None, :]
        x = tl.load(x_row[:, None] + column[None, :] * dim_stride, mask=inside, other=0.0)
        x = x.to(tl.float32)
        if inverse_norms_ptr is not None:
            inverse = tl.load(inverse_norms_ptr + row, mask=row_ok, other=0.0)
            x = (x.to(tl.float64) * inverse[:, None]).to(tl.float32)
        at = sums_ptr + (code[:, None] * dim + column[None, :])
        tl.atomic_add(at, x, mask=inside, sem="relaxed")


def code_sums(
    x: Tensor,
    indices: Tensor,
    mask: Tensor | None,
    num_codes: int,
    channel_dim: int,
    *,
    unit: bool,
    skip_nonfinite: bool,
    deterministic: bool = True,
) -> tuple[Tensor, Tensor]:
    """Counts (int64) and sums per code of the rows (``unit``: of x/|x|) that chose it.

    The same bits on every run, unless ``deterministic`` is False: then float32 atomics add them.
    """
    dim = x.shape[channel_dim]
    if joint_layout(channel_dim, x) is None:
        x = x.contiguous()
    keys, inverse_norms = row_keys(
        *(x, indices.reshape(-1), mask, num_codes, channel_dim),
        unit=unit,
        skip_nonfinite=skip_nonfinite,
    )
    if deterministic:
        runs = find_runs(keys, num_codes)
        sums = torch.empty(num_codes, dim, dtype=torch.float32, device=x.device)
        return runs.counts, run_sums(x, runs, sums, channel_dim, inverse_norms=inverse_norms)
    counts = torch.zeros(num_codes, dtype=torch.int64, device=x.device)
    sums = torch.zeros(num_codes, dim, dtype=torch.float32, device=x.device)
    block_n, block_d = tile(x, channel_dim)
    with torch.cuda.device_of(x):
        _atomic_sums_kernel[(triton.cdiv(keys.numel(), block_n),)](
            x,
            inverse_norms,
            keys,
            counts,
            sums,
            keys.numel(),
            num_codes,
            dim,
            *joint_layout(channel_dim, x),
            BLOCK_N=block_n,
            BLOCK_D=block_d,
        )
    return counts, sums
