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

from vqkernels._layout import like_x, row_dims, row_shape

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


def nearest_code(
    x: Tensor, codebook: Tensor, metric: str, channel_dim: int
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
        (0, 0),
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
        (0, 0),
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


def _threads(multiply_adds: int) -> int:
    return torch.get_num_threads() if multiply_adds >= _WORTH_SHARING else 1


def _rows(x: Tensor, channel_dim: int) -> Any:
    sizes, strides = row_dims(x, channel_dim)
    dtype = str(x.dtype).removeprefix("torch.")
    return _core.Rows(
        x.data_ptr(), dtype, sizes, strides, x.shape[channel_dim], x.stride(channel_dim)
    )


def _codes(codebook: Tensor) -> Tensor:
    return codebook.to(torch.float32).contiguous()


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
