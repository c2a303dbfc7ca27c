"""prepare: what a backend derives from a codebook ahead of its searches."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels.backends import native
from vqkernels.ops._library import define
from vqkernels.ops.dispatch import choose, triton_launcher


def on_cpu(codebook: Tensor, backend: str | None) -> bool:
    """Whether the native search on the CPU will be the one: what keeps something unasked."""
    return codebook.is_cpu and choose("nearest_code", codebook, None, backend) == "native"


def _cells(codebook: Tensor, cells: int | None) -> int:
    k, d = codebook.shape
    return native.suitable_cells(k, d) if cells is None else cells


def _impl(codebook: Tensor, metric: str, backend: str | None, cells: int | None) -> list[Tensor]:
    if on_cpu(codebook, backend):
        return [native.prepare(codebook, metric, _cells(codebook, cells))]
    if cells and choose("nearest_code", codebook, None, backend) == "triton":
        return [triton_launcher("prepare").prepare(codebook, metric, cells)]
    return []


def _fake(codebook: Tensor, metric: str, backend: str | None, cells: int | None) -> list[Tensor]:
    k, d = codebook.shape
    if on_cpu(codebook, backend):
        size = native.prepared_bytes(k, d, _cells(codebook, cells))
        return [codebook.new_empty(size, dtype=torch.uint8)]
    if cells and choose("nearest_code", codebook, None, backend) == "triton":
        shape = triton_launcher("prepare").prepared_shape(codebook, metric, cells)
        return [codebook.new_empty(shape, dtype=torch.uint8)]
    return []


prepare = define(
    "prepare(Tensor codebook, str metric, str? backend, int? cells) -> Tensor[]", _impl, _fake
)
