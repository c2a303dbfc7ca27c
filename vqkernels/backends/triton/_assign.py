"""What follows a search, in one pass: gather, subtract, measure, and say where rows count."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from vqkernels.backends.triton._layouts import joint_layout, row_start, split_row
from vqkernels.backends.triton._row_facts import as_bytes, key_dtype, row_facts
from vqkernels.backends.triton._tiles import tile


@triton.jit(do_not_specialize=["num_rows", "num_codes", "level"])
def _assign_kernel(
    x_ptr,  # (N, D) through strides, fp32 | fp16 | bf16
    codebook_ptr,  # (K, D) contiguous, fp32 | fp16 | bf16
    mask_ptr,  # (N,) uint8 | None
    kept_ptr,  # (N,) int64, levels that the row takes part in | None: all
    found_ptr,  # (N,) int64, what the search returned
    indices_ptr,  # (N,) int64 through a stride; may be found_ptr
    keys_ptr,  # (N,) int16 | int32
    inverse_norms_ptr,  # (N,) fp64, written; None unless x/|x| is compared
    quantized_ptr,  # (N, D) through strides, fp32
    left_ptr,  # (N, D) contiguous, fp32 | None: x minus its code
    remainder_ptr,  # (N, D) like quantized, fp32 | None: the sum of ``left`` over the levels
    errors_ptr,  # (programs,) fp64, sums of squares
    valid_ptr,  # (programs,) int32, rows that are not masked
    lost_ptr,  # (programs,) int32, rows that take part and are not finite
    num_rows,
    num_codes,
    level,
    dim,
    index_stride,
    size1,
    size2,
    size3,
    x_stride0,
    x_stride1,
    x_stride2,
    x_stride3,
    x_dim_stride,
    q_stride0,
    q_stride1,
    q_stride2,
    q_stride3,
    q_dim_stride,
    FIRST: tl.constexpr,  # else codes are added to quantized, and what is left to the remainder
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    row_ok = row < num_rows
    i0, i1, i2, i3 = split_row(row, size1, size2, size3)
    x_row = x_ptr + row_start(i0, i1, i2, i3, x_stride0, x_stride1, x_stride2, x_stride3)
    q_row = row_start(i0, i1, i2, i3, q_stride0, q_stride1, q_stride2, q_stride3)
    finite, norm = row_facts(x_row, row_ok, dim, x_dim_stride, BLOCK_N, BLOCK_D)
    inverse = 1.0 / norm
    if inverse_norms_ptr is not None:
        tl.store(inverse_norms_ptr + row, inverse, mask=row_ok)

    valid = row_ok
    if mask_ptr is not None:
        valid = valid & (tl.load(mask_ptr + row, mask=row_ok, other=0) != 0)
    taking = valid
    if kept_ptr is not None:
        taking = valid & (tl.load(kept_ptr + row, mask=row_ok, other=0) > level)
    code = tl.load(found_ptr + row, mask=row_ok, other=0)
    tl.store(indices_ptr + row * index_stride, tl.where(taking, code, -1), mask=row_ok)
    key = tl.where(taking & finite, code, num_codes)
    tl.store(keys_ptr + row, key.to(keys_ptr.dtype.element_ty), mask=row_ok)

    error = tl.zeros((BLOCK_N, BLOCK_D), tl.float64)
    for start in range(0, dim, BLOCK_D):
        column = start + tl.arange(0, BLOCK_D).to(tl.int64)
        column_ok = (column < dim)[None, :]
        inside = row_ok[:, None] & column_ok
        counts = taking[:, None] & column_ok
        x = tl.load(x_row[:, None] + column[None, :] * x_dim_stride, mask=inside, other=0.0)
        x = x.to(tl.float32)
        at = codebook_ptr + (code[:, None] * dim + column[None, :])
        chosen = tl.load(at, mask=counts, other=0.0).to(tl.float32)
        chosen = tl.where(finite[:, None], chosen, float("nan"))
        compared = x.to(tl.float64)
        if inverse_norms_ptr is not None:
            compared = compared * inverse[:, None]
        difference = tl.where(counts, compared - chosen.to(tl.float64), 0.0)
        error += difference * difference

        q_at = q_row[:, None] + column[None, :] * q_dim_stride
        out = tl.where(taking[:, None], chosen, tl.where(valid[:, None], 0.0, x))
        if not FIRST:
            so_far = tl.load(quantized_ptr + q_at, mask=inside, other=0.0)
            out = tl.where(taking[:, None], so_far + chosen, so_far)
        tl.store(quantized_ptr + q_at, out, mask=inside)
        left = tl.where(counts, x - chosen, 0.0)
        if left_ptr is not None:
            tl.store(left_ptr + (row[:, None] * dim + column[None, :]), left, mask=inside)
        if remainder_ptr is not None:
            if not FIRST:
                so_far = tl.load(remainder_ptr + q_at, mask=inside, other=0.0)
                left = tl.where(taking[:, None], so_far + left, so_far)
            tl.store(remainder_ptr + q_at, left, mask=inside)

    tl.store(errors_ptr + tl.program_id(0), tl.sum(tl.sum(error, axis=1), axis=0))
    tl.store(valid_ptr + tl.program_id(0), tl.sum(valid.to(tl.int32), axis=0))
    lost = taking & (finite == 0)
    tl.store(lost_ptr + tl.program_id(0), tl.sum(lost.to(tl.int32), axis=0))


@triton.jit(do_not_specialize=["num_parts"])
def _mean_error_kernel(
    errors_ptr,  # (L, parts) fp64
    valid_ptr,  # (L, parts) int32
    mse_ptr,  # (L,) fp32
    num_parts,
    dim,
    BLOCK: tl.constexpr,
):
    level = tl.program_id(0).to(tl.int64)
    error = tl.zeros((BLOCK,), tl.float64)
    rows = tl.zeros((BLOCK,), tl.int64)
    for start in range(0, num_parts, BLOCK):
        part = start + tl.arange(0, BLOCK)
        inside = part < num_parts
        error += tl.load(errors_ptr + level * num_parts + part, mask=inside, other=0.0)
        rows += tl.load(valid_ptr + level * num_parts + part, mask=inside, other=0).to(tl.int64)
    elements = tl.maximum(tl.sum(rows, axis=0) * dim, 1).to(tl.float64)
    tl.store(mse_ptr + level, (tl.sum(error, axis=0) / elements).to(tl.float32))


class Assignment:
    """The pass after the search of every level of N rows, and what the levels share.

    ``mse``, one float32 per level, is written by ``finish()``: the mean squared error over the
    valid elements, added in a fixed order.
    """

    def __init__(self, x: Tensor, num_rows: int, mse: Tensor, channel_dim: int) -> None:
        self._rows, self._channel_dim, self._mse = num_rows, channel_dim, mse
        self._dim = x.shape[channel_dim]
        self._block_n, self._block_d = tile(x, channel_dim)
        self._parts = triton.cdiv(num_rows, self._block_n)
        parts = (mse.numel(), self._parts)
        self._errors = torch.empty(parts, dtype=torch.float64, device=x.device)
        self._valid = torch.empty(parts, dtype=torch.int32, device=x.device)
        self._lost = torch.empty_like(self._valid)

    def level(
        self,
        level: int,
        x: Tensor,
        codebook: Tensor,
        mask: Tensor | None,
        kept: Tensor | None,
        found: Tensor,
        indices: Tensor,
        quantized: Tensor,
        left: Tensor | None = None,
        remainder: Tensor | None = None,
        *,
        unit: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Keys for the sums per code, and 1/|x| with ``unit``; see the kernel for the rest."""
        keys = torch.empty(self._rows, dtype=key_dtype(len(codebook)), device=x.device)
        inverse_norms = keys.new_empty(self._rows, dtype=torch.float64) if unit else None
        with torch.cuda.device_of(x):
            _assign_kernel[(self._parts,)](
                x,
                codebook,
                as_bytes(mask),
                kept,
                found,
                indices,
                keys,
                inverse_norms,
                quantized,
                left,
                remainder,
                self._errors[level],
                self._valid[level],
                self._lost[level],
                self._rows,
                len(codebook),
                level,
                self._dim,
                indices.stride(0),
                *joint_layout(self._channel_dim, x, quantized),
                FIRST=level == 0,
                BLOCK_N=self._block_n,
                BLOCK_D=self._block_d,
            )
        return keys, inverse_norms

    def lost_rows(self) -> Tensor:
        """(L,) int64, rows that take part in a level and are not finite there."""
        return self._lost.sum(dim=1)

    def finish(self) -> None:
        with torch.cuda.device_of(self._mse):
            _mean_error_kernel[(self._mse.numel(),)](
                self._errors, self._valid, self._mse, self._parts, self._dim, BLOCK=2048
            )
