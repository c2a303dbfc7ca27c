"""What the ops that write a module's state in place share."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels.backends.native._core import core

Expected = list[tuple[Tensor | None, tuple[int, ...]]]


def lie(dtype: torch.dtype, expected: Expected) -> bool:
    return core is not None and all(
        tensor is None
        or (
            tensor.is_cpu
            and tensor.dtype is dtype
            and tensor.shape == shape
            and tensor.is_contiguous()
        )
        for tensor, shape in expected
    )


def wrote(*tensors: Tensor | None) -> None:
    """Tells autograd, which sees no write through a pointer."""
    for tensor in tensors:
        if tensor is not None and not tensor.is_inference():
            torch.autograd.graph.increment_version(tensor)
