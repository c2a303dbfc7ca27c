"""Launches csrc: pointers, sizes and strides in, no tensor knowledge there.

The caller has validated shapes, dtypes and devices. Codebooks are made contiguous float32 here,
which is exact for float16 and bfloat16 and costs K*D; x is never copied.
"""

from __future__ import annotations

import importlib
import os
import warnings
from typing import Any

import torch
from torch import Tensor

from vqkernels._in_place import wrote
from vqkernels._layout import like_x, row_shape

_core: Any = None
_why: str | None = None
try:
    _core = importlib.import_module("vqkernels._native")
except ImportError as _cause:
    _why = (
        f"backend='native' must have the compiled extension, got: {_cause}. Install the package "
        "with a C++ compiler present (in a source tree: pip install -e .) and without "
        "VQK_NATIVE=off"
    )
    if os.environ.get("VQK_NATIVE") != "off":
        warnings.warn(
            "vqkernels: the compiled extension is missing, the slow reference backend runs "
            "instead. Reinstall with a C++ compiler, or set VQK_NATIVE=off to accept this.",
            RuntimeWarning,
            stacklevel=2,
        )

# Below this many multiply-adds (tens of microseconds) waking the other threads costs more than it
# saves, and far more when another process holds their cores. No result depends on the choice.
_WORTH_SHARING = 1 << 18

_DTYPE = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
_METRIC = {"l2": 0, "cosine": 1}
_ESTIMATOR = {"straight_through": 0, "rotation": 1}


def missing() -> str | None:
    """Why the extension cannot be used, with the fix; None when it can."""
    return _why


def build_info() -> dict[str, Any] | None:
    """Compiler, the levels that were built and the active one; None without the extension."""
    if _core is None:
        return None
    return {**_core.build_info(), "active level": _core.isa()}


def prepared_bytes(num_codes: int, dim: int) -> int:
    return int(_core.prepared_bytes(num_codes, dim))


def prepare(codebook: Tensor, metric: str) -> Tensor:
    """The codebook packed for the search at the level in use, with a copy of itself."""
    codes = _codes(codebook)
    k, d = codes.shape
    # torch aligns its CPU memory to 64 bytes, which the panels need.
    packed = codes.new_empty(prepared_bytes(k, d), dtype=torch.uint8)
    _core.prepare(
        codes.data_ptr(), k, d, _METRIC[metric], packed.data_ptr(), _threads(64 * codes.numel())
    )
    return packed


def nearest_code(
    x: Tensor, codebook: Tensor, prepared: list[Tensor] | None, metric: str, channel_dim: int
) -> tuple[Tensor, Tensor]:
    shape = row_shape(x, channel_dim)
    indices = x.new_empty(shape, dtype=torch.int64)
    distances = x.new_empty(shape, dtype=torch.float32)
    codes = _codes(codebook)
    _core.nearest_code(
        _rows(x, channel_dim),
        codes.data_ptr(),
        codes.shape[0],
        _METRIC[metric],
        _prepared(prepared),
        indices.data_ptr(),
        distances.data_ptr(),
        _threads(x.numel() * codes.shape[0]),
    )
    return indices, distances


def lookup(indices: Tensor, codebook: Tensor, channel_dim: int) -> Tensor:
    k, d = codebook.shape
    shape = (*indices.shape[:channel_dim], d, *indices.shape[channel_dim:])
    out = codebook.new_empty(shape, dtype=torch.float32)
    flat = _flat_indices(indices)
    codes = _codes(codebook)
    bad = _core.lookup(
        flat.data_ptr(), codes.data_ptr(), k, _rows(out, channel_dim), _threads(out.numel())
    )
    _refuse(bad, flat, k)
    return out.to(codebook.dtype)


def code_sums(
    x: Tensor,
    indices: Tensor,
    mask: Tensor | None,
    num_codes: int,
    channel_dim: int,
    *,
    unit: bool,
    skip_nonfinite: bool,
) -> tuple[Tensor, Tensor]:
    counts = x.new_empty(num_codes, dtype=torch.int64)
    sums = x.new_empty(num_codes, x.shape[channel_dim], dtype=torch.float32)
    flat = _flat_indices(indices)
    kept = _flat_mask(mask)
    bad = _core.code_sums(
        _rows(x, channel_dim),
        flat.data_ptr(),
        _pointer(kept),
        num_codes,
        unit,
        skip_nonfinite,
        counts.data_ptr(),
        sums.data_ptr(),
        _threads(x.numel()),
    )
    _refuse(bad, flat, num_codes)
    return counts, sums


def vq_forward(
    x: Tensor,
    codebook: Tensor,
    prepared: list[Tensor] | None,
    mask: Tensor | None,
    metric: str,
    channel_dim: int,
    statistics: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    k, d = codebook.shape
    quantized = like_x(x, torch.float32)
    indices = x.new_empty(row_shape(x, channel_dim), dtype=torch.int64)
    mse = x.new_empty((), dtype=torch.float32)
    counts = x.new_empty(k, dtype=torch.int64)
    sums = x.new_empty(k if statistics else 0, d, dtype=torch.float32)
    codes = _codes(codebook)
    kept = _flat_mask(mask)
    _core.vq_forward(
        _rows(x, channel_dim),
        codes.data_ptr(),
        k,
        _METRIC[metric],
        _prepared(prepared),
        _pointer(kept),
        indices.data_ptr(),
        _rows(quantized, channel_dim),
        mse.data_ptr(),
        counts.data_ptr(),
        sums.data_ptr() if statistics else 0,
        _threads(x.numel() * k),
    )
    return quantized, indices, mse, counts, sums


def vq_backward(
    grad_quantized: Tensor | None,
    grad_loss: Tensor | None,
    x: Tensor,
    quantized: Tensor,
    indices: Tensor,
    num_codes: int,
    metric: str,
    estimator: str,
    commitment_weight: float,
    codebook_weight: float,
    channel_dim: int,
    need_x: bool,
    need_codebook: bool,
) -> tuple[Tensor, Tensor]:
    grad_x = like_x(x, x.dtype) if need_x else x.new_empty(0)
    shape = (num_codes, x.shape[channel_dim]) if need_codebook else (0,)
    grad_codes = quantized.new_empty(shape)
    flat = _flat_indices(indices)
    _core.vq_backward(
        _rows(x, channel_dim),
        _rows(quantized, channel_dim),
        flat.data_ptr(),
        num_codes,
        _METRIC[metric],
        _ESTIMATOR[estimator],
        None if grad_quantized is None else _rows(grad_quantized, channel_dim),
        _pointer(grad_loss),
        commitment_weight,
        codebook_weight,
        _rows(grad_x, channel_dim) if need_x else None,
        grad_codes.data_ptr() if need_codebook else 0,
        _threads(x.numel()),
    )
    return grad_x, grad_codes


def normalize_codes(codebook: Tensor) -> tuple[Tensor, Tensor]:
    unit = codebook.new_empty(codebook.shape, dtype=torch.float32)
    norms = codebook.new_empty((codebook.shape[0], 1), dtype=torch.float64)
    _core.normalize_codes(
        _rows(codebook, 1), unit.data_ptr(), norms.data_ptr(), _threads(codebook.numel())
    )
    return unit, norms


def sample_rows(
    x: Tensor, mask: Tensor | None, clock: Tensor, count: int, seed: int, channel_dim: int
) -> tuple[Tensor, Tensor]:
    rows = x.new_empty(count, x.shape[channel_dim], dtype=torch.float32)
    found = torch.empty_like(clock)
    kept = _flat_mask(mask)
    _core.sample_rows(
        _rows(x, channel_dim),
        _pointer(kept),
        clock.data_ptr(),
        count,
        seed & 0xFFFFFFFF,
        rows.data_ptr(),
        found.data_ptr(),
    )
    return rows, found


def observe(
    pending_counts: Tensor,
    pending_sums: Tensor | None,
    pending_rows: Tensor | None,
    pending_steps: Tensor,
    counts: Tensor,
    sums: Tensor | None,
    rows: Tensor | None,
    found: Tensor | None,
) -> None:
    values = sums if sums is not None else rows
    dim = 0 if values is None else values.shape[1]
    _core.observe(
        pending_counts.data_ptr(),
        0 if sums is None else _pointer(pending_sums),
        0 if rows is None else _pointer(pending_rows),
        pending_steps.data_ptr(),
        counts.data_ptr(),
        _pointer(sums),
        _pointer(rows),
        _pointer(found),
        counts.shape[0],
        dim,
        0 if rows is None else rows.shape[0],
        _threads(0 if sums is None else sums.numel()),
    )
    wrote(pending_counts, pending_sums, pending_rows, pending_steps)


def advance(
    codebook: Tensor,
    cluster_size: Tensor,
    embed_sum: Tensor | None,
    pending_counts: Tensor,
    pending_sums: Tensor | None,
    pending_rows: Tensor | None,
    pending_steps: Tensor,
    clock: Tensor,
    decay: float,
    epsilon: float,
    steps_due: int,
    metric: str,
    threshold: float,
    revive_every: int,
) -> None:
    k, d = codebook.shape
    _core.advance(
        codebook.data_ptr(),
        cluster_size.data_ptr(),
        _pointer(embed_sum),
        pending_counts.data_ptr(),
        _pointer(pending_sums),
        _pointer(pending_rows),
        pending_steps.data_ptr(),
        clock.data_ptr(),
        k,
        d,
        0 if pending_rows is None else pending_rows.shape[0],
        decay,
        epsilon,
        steps_due,
        metric == "cosine",
        threshold,
        revive_every,
        _threads(codebook.numel()),
    )
    wrote(codebook, cluster_size, embed_sum, pending_counts, pending_sums, pending_steps, clock)


def residual(
    x: Tensor,
    codebooks: Tensor,
    prepared: list[Tensor] | None,
    levels: int,
    mask: Tensor | None,
    channel_dim: int,
    statistics: bool,
    need_x: bool,
    need_codebooks: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    books, k, d = codebooks.shape
    quantized = like_x(x, torch.float32)
    indices = x.new_empty((*row_shape(x, channel_dim), levels), dtype=torch.int64)
    mse = x.new_empty(levels, dtype=torch.float32)
    counts = x.new_empty((levels, k), dtype=torch.int64)
    sums = x.new_empty((levels if statistics else 0, k, d), dtype=torch.float32)
    remainder = like_x(x, torch.float32) if need_x else x.new_empty(0, dtype=torch.float32)
    code_remainders = x.new_empty((levels if need_codebooks else 0, k, d), dtype=torch.float32)
    codes = _codes(codebooks)
    kept = _flat_mask(mask)
    _core.residual(
        _rows(x, channel_dim),
        codes.data_ptr(),
        k,
        levels,
        books != levels,
        [_prepared([part]) for part in prepared or ()],
        _pointer(kept),
        indices.data_ptr(),
        _rows(quantized, channel_dim),
        _rows(remainder, channel_dim) if need_x else None,
        mse.data_ptr(),
        counts.data_ptr(),
        sums.data_ptr() if statistics else 0,
        code_remainders.data_ptr() if need_codebooks else 0,
        _threads(x.numel() * k * levels),
    )
    return quantized, indices, mse, counts, sums, remainder, code_remainders


def residual_backward(
    grad_quantized: Tensor | None,
    grad_loss: Tensor | None,
    x: Tensor | None,
    quantized: Tensor | None,
    remainder: Tensor,
    code_remainders: Tensor,
    indices: Tensor,
    shared: bool,
    estimator: str,
    commitment_weight: float,
    codebook_weight: float,
    channel_dim: int,
    dtype: torch.dtype,
    need_x: bool,
    need_codebooks: bool,
) -> tuple[Tensor, Tensor]:
    _, k, d = code_remainders.shape
    levels = indices.shape[-1]
    grad_x = like_x(remainder, dtype) if need_x else remainder.new_empty(0, dtype=dtype)
    books = (1 if shared else levels, k, d) if need_codebooks else (0,)
    grad_codebooks = code_remainders.new_empty(books)
    flat = _flat_indices(indices)

    def rows(value: Tensor | None) -> Any:
        return None if value is None or not need_x else _rows(value, channel_dim)

    _core.residual_backward(
        _ESTIMATOR[estimator],
        rows(x),
        rows(quantized),
        rows(remainder),
        code_remainders.data_ptr() if need_codebooks else 0,
        flat.data_ptr(),
        flat.numel() // levels,
        d,
        k,
        levels,
        shared,
        rows(grad_quantized),
        _pointer(grad_loss),
        commitment_weight,
        codebook_weight,
        rows(grad_x),
        grad_codebooks.data_ptr() if need_codebooks else 0,
        _threads(remainder.numel() + code_remainders.numel()),
    )
    return grad_x, grad_codebooks


def _threads(multiply_adds: int) -> int:
    return torch.get_num_threads() if multiply_adds >= _WORTH_SHARING else 1


def _rows(x: Tensor, channel_dim: int) -> Any:
    return _core.Rows(x.data_ptr(), _DTYPE[x.dtype], x.shape, x.stride(), channel_dim)


def _codes(codebook: Tensor) -> Tensor:
    if codebook.dtype is torch.float32 and codebook.is_contiguous():
        return codebook
    return codebook.to(torch.float32).contiguous()


def _prepared(parts: list[Tensor] | None) -> tuple[int, int]:
    if not parts or not parts[0].is_cpu or parts[0].dtype is not torch.uint8:
        return 0, 0
    return parts[0].data_ptr(), parts[0].numel()


def _flat_indices(indices: Tensor) -> Tensor:
    return indices.to(torch.int64).contiguous()


def _flat_mask(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask.contiguous()


def _pointer(value: Tensor | None) -> int:
    return 0 if value is None else value.data_ptr()


def _refuse(bad_row: int, flat: Tensor, num_codes: int) -> None:
    if bad_row >= 0:
        value = int(flat.reshape(-1)[bad_row])
        raise ValueError(f"indices must be in [-1, {num_codes - 1}], got {value}")
