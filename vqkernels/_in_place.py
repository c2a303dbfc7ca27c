"""State tensors that a launcher reads and writes where they lie, by pointer."""

from __future__ import annotations

import torch
from torch import Tensor

# A tensor, or None where the state has none, and the shape that it must have.
Expected = list[tuple[Tensor | None, tuple[int, ...]]]


def lie(dtype: torch.dtype, expected: Expected, device: torch.device) -> bool:
    """Whether all of them are contiguous there, of that dtype and of these shapes."""
    return all(
        tensor is None
        or (
            tensor.device == device
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
