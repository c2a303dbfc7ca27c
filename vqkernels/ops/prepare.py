"""prepare: what a backend derives from a codebook ahead of its searches."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels.backends import native
from vqkernels.ops._library import define
from vqkernels.ops.dispatch import choose, triton_launcher


def _impl(
    codebook: Tensor, metric: str, backend: str | None, groups: int | None = None
) -> list[Tensor]:
    chosen = choose("nearest_code", codebook, None, backend)
    if chosen == "native":
        return [native.prepare(codebook, metric)]
    if chosen == "triton" and groups:
        return [triton_launcher("prepare").prepare(codebook, metric, groups)]
    return []


def _fake(
    codebook: Tensor, metric: str, backend: str | None, groups: int | None = None
) -> list[Tensor]:
    chosen = choose("nearest_code", codebook, None, backend)
    if chosen == "native":
        k, d = codebook.shape
        return [codebook.new_empty(native.prepared_bytes(k, d), dtype=torch.uint8)]
    if chosen == "triton" and groups:
        shape = triton_launcher("prepare").prepared_shape(codebook, metric, groups)
        return [codebook.new_empty(shape, dtype=torch.uint8)]
    return []


prepare = define(
    "prepare(Tensor codebook, str metric, str? backend, int? groups=None) -> Tensor[]",
    _impl,
    _fake,
)
