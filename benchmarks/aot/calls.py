"""Public calls whose launches are compiled: every op, at the widths where kernels differ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import vqkernels as vq
from vqkernels import ops
from vqkernels.ops import dispatch

_ROWS = 65536
# Channels -> codes: the sizes of the benchmarks, and what lies between them.
_CODES = {4: 16384, 8: 16384, 16: 16384, 32: 65536, 64: 1024, 128: 8192, 256: 8192, 512: 8192}
_LEVELS = 8


def _pair(
    dim: int, dtype: torch.dtype = torch.float32, rows: int = _ROWS
) -> tuple[Tensor, Tensor]:
    return torch.zeros(rows, dim, dtype=dtype), torch.zeros(_CODES[dim], dim)


def _search(dim: int, dtype: torch.dtype = torch.float32, metric: str = "l2") -> None:
    x, codebook = _pair(dim, dtype)
    vq.nearest_code(x, codebook, metric=metric, backend="triton")


def _search_in_cells(dim: int, cells: int) -> None:
    x, codebook = _pair(dim)
    prepared = vq.prepare(codebook, backend="triton", cells=cells)
    vq.nearest_code(x, prepared, backend="triton")


def _quantize(dim: int, dtype: torch.dtype = torch.float32, **options: str) -> None:
    x, codebook = _pair(dim, dtype)
    x, codebook = x.requires_grad_(), codebook.requires_grad_()
    out = vq.vector_quantize(x, codebook, backend="triton", **options)  # type: ignore[arg-type]
    (out.quantized.sum() + out.loss).backward()


def _step(dim: int, **options: Any) -> None:
    """Forward with statistics, backward, and the update of the codebook."""
    x, codebook = _pair(dim)
    module = vq.nn.VectorQuantizer(*codebook.shape, init=codebook, backend="triton", **options)
    out = module(x.requires_grad_())
    (out.quantized.sum() + out.loss).backward()
    module.flush()


def _residual(dim: int, ends: bool = False) -> None:
    x = torch.zeros(4096, dim, requires_grad=True)
    codebooks = torch.zeros(_LEVELS, 1024, dim, requires_grad=True)
    kept = torch.ones(len(x), dtype=torch.int64) if ends else None
    mask = None if kept is None else kept > 0
    out = vq.residual_quantize(x, codebooks, mask=mask, kept=kept, backend="triton")
    (out.quantized.sum() + out.loss).backward()


def _lookup(dim: int) -> None:
    _, codebook = _pair(dim)
    vq.lookup(torch.zeros(_ROWS, dtype=torch.int64), codebook.requires_grad_()).sum().backward()


def _code_sums(dim: int) -> None:
    x, codebook = _pair(dim)
    indices = torch.zeros(_ROWS, dtype=torch.int64)
    for deterministic in (True, False):
        vq.code_sums(x, indices, len(codebook), deterministic=deterministic)


def _soft(dim: int) -> None:
    """Soft assignment with usage, its gradients, and a draw from it."""
    x, codebook = _pair(dim)
    options = (1.0, 1)
    leaves = (x.clone().requires_grad_(), codebook.clone().requires_grad_())
    log_sums, mean, usage = ops.SoftAssign.apply(*leaves, None, *options, True, "triton")
    (log_sums.sum() + mean.sum() + usage.sum()).backward()
    clock = torch.zeros((), dtype=torch.int64)
    ops.sample_codes(x, codebook, log_sums.detach(), clock, 0, *options, "triton")


def _finite_scalars(*levels: int, dtype: torch.dtype = torch.float32, **options: Any) -> None:
    x = torch.zeros(_ROWS, len(levels), dtype=dtype, requires_grad=True)
    vq.nn.FSQ(levels, backend="triton", **options)(x).quantized.sum().backward()


def _unit_probe() -> None:
    dispatch.triton_launcher("unit_probe").share_of_bound(torch.device("cpu"))


CALLS: dict[str, Callable[[], None]] = {
    **{f"search D={d}": lambda d=d: _search(d) for d in _CODES},  # type: ignore[misc]
    **{
        f"search D={d} bf16": lambda d=d: _search(d, torch.bfloat16)  # type: ignore[misc]
        for d in (8, 64, 128, 256)
    },
    "search D=64 fp16": lambda: _search(64, torch.float16),
    "search D=8 cosine": lambda: _search(8, metric="cosine"),
    "search D=64 cosine": lambda: _search(64, metric="cosine"),
    "search D=8 in cells": lambda: _search_in_cells(8, 256),
    "search D=128 in cells": lambda: _search_in_cells(128, 64),
    "quantize D=64": lambda: _quantize(64),
    "quantize D=64 bf16": lambda: _quantize(64, torch.bfloat16),
    "quantize D=64 cosine": lambda: _quantize(64, metric="cosine"),
    "quantize D=64 rotation": lambda: _quantize(64, estimator="rotation"),
    "quantize D=256": lambda: _quantize(256),
    "step D=64": lambda: _step(64),
    "step D=64 cosine, some codes frozen": lambda: _step(
        64, metric="cosine", frozen=torch.arange(_CODES[64]) < 2
    ),
    "residual D=128": lambda: _residual(128),
    "residual D=128 masked, kept": lambda: _residual(128, ends=True),
    "lookup D=64": lambda: _lookup(64),
    "code sums D=64": lambda: _code_sums(64),
    "soft D=64": lambda: _soft(64),
    "soft D=256": lambda: _soft(256),
    "finite scalars D=4": lambda: _finite_scalars(8, 5, 5, 5),
    "finite scalars D=20 bf16": lambda: _finite_scalars(
        *(8,) * 20, dtype=torch.bfloat16, preserve_symmetry=True, bound="clamp"
    ),
    "self-check": _unit_probe,
}
