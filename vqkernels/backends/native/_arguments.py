"""Tensors as the pointers, sizes and strides that csrc takes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vqkernels.backends.native._core import core

# Below this many multiply-adds (tens of microseconds) waking the other threads costs more than it
# saves, and far more when another process holds their cores. No result depends on the choice.
_WORTH_SHARING = 1 << 18

_DTYPE = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
METRIC = {"l2": 0, "cosine": 1}
ESTIMATOR = {"straight_through": 0, "rotation": 1}


def threads(multiply_adds: int) -> int:
    return torch.get_num_threads() if multiply_adds >= _WORTH_SHARING else 1


def rows_of(x: Tensor, channel_dim: int) -> Any:
    return core.Rows(x.data_ptr(), _DTYPE[x.dtype], x.shape, x.stride(), channel_dim)


def stream_of(x: Tensor) -> tuple[int, int]:
    """The device of x and the address of the stream that its kernels are launched on."""
    return x.device.index, torch.cuda.current_stream(x.device).cuda_stream


def contiguous_codes(codebook: Tensor) -> Tensor:
    if codebook.dtype is torch.float32 and codebook.is_contiguous():
        return codebook
    return codebook.to(torch.float32).contiguous()


def prepared_block(parts: list[Tensor] | None) -> tuple[int, int]:
    if not parts or not parts[0].is_cpu or parts[0].dtype is not torch.uint8:
        return 0, 0
    return parts[0].data_ptr(), parts[0].numel()


def flat_indices(indices: Tensor) -> Tensor:
    return indices.to(torch.int64).contiguous()


def flat_mask(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask.contiguous()


def pointer(value: Tensor | None) -> int:
    return 0 if value is None else value.data_ptr()


def refuse(bad_row: int, flat: Tensor, num_codes: int) -> None:
    if bad_row >= 0:
        value = int(flat.reshape(-1)[bad_row])
        raise ValueError(f"indices must be in [-1, {num_codes - 1}], got {value}")
