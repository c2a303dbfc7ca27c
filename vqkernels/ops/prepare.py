"""prepare: what a backend derives from a codebook ahead of its searches."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels.backends import native
from vqkernels.ops._library import define
from vqkernels.ops.dispatch import choose


def _impl(codebook: Tensor, metric: str, backend: str | None) -> list[Tensor]:
    if choose("nearest_code", codebook, None, backend) == "native":
        return [native.prepare(codebook, metric)]
    return []


def _fake(codebook: Tensor, metric: str, backend: str | None) -> list[Tensor]:
    if choose("nearest_code", codebook, None, backend) == "native":
        k, d = codebook.shape
        return [codebook.new_empty(native.prepared_bytes(k, d), dtype=torch.uint8)]
    return []


prepare = define("prepare(Tensor codebook, str metric, str? backend) -> Tensor[]", _impl, _fake)
