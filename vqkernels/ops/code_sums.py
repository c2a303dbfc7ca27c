"""code_sums: counts and sums of the rows per code. Not differentiable."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels._numerics import wide
from vqkernels.ops._library import define
from vqkernels.ops.dispatch import choose, launcher
from vqkernels.ops.lookup import refuse_out_of_range


def _impl(
    x: Tensor,
    indices: Tensor,
    num_codes: int,
    mask: Tensor | None,
    metric: str,
    channel_dim: int,
    backend: str | None,
    deterministic: bool = True,
) -> tuple[Tensor, Tensor]:
    """``deterministic=False`` permits an order that varies; only Triton has a faster one."""
    chosen = choose("code_sums", x, None, backend)
    if chosen != "native" and x.device.type == "cpu":
        refuse_out_of_range(indices, num_codes)
    order = {"deterministic": deterministic} if chosen == "triton" else {}
    return launcher("code_sums", x, None, backend).code_sums(
        *(x, indices, mask, num_codes, channel_dim),
        unit=metric == "cosine",
        skip_nonfinite=True,
        **order,
    )


def _fake(
    x: Tensor,
    indices: Tensor,
    num_codes: int,
    mask: Tensor | None,
    metric: str,
    channel_dim: int,
    backend: str | None,
    deterministic: bool = True,
) -> tuple[Tensor, Tensor]:
    return (
        x.new_empty(num_codes, dtype=torch.int64),
        x.new_empty(num_codes, x.shape[channel_dim], dtype=wide(x.dtype)),
    )


code_sums = define(
    "code_sums(Tensor x, Tensor indices, int num_codes, Tensor? mask, str metric, "
    "int channel_dim, str? backend, bool deterministic=True) -> (Tensor counts, Tensor sums)",
    _impl,
    _fake,
)
