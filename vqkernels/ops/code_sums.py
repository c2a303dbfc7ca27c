"""code_sums: counts and sums of the rows per code. Not differentiable."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels._numerics import wide
from vqkernels.backends import native, reference
from vqkernels.ops._library import define
from vqkernels.ops.dispatch import choose
from vqkernels.ops.lookup import refuse_out_of_range


def _impl(
    x: Tensor,
    indices: Tensor,
    num_codes: int,
    mask: Tensor | None,
    metric: str,
    channel_dim: int,
    backend: str | None,
) -> tuple[Tensor, Tensor]:
    native_runs = choose("code_sums", x, None, backend) == "native"
    if not native_runs and x.device.type == "cpu":
        refuse_out_of_range(indices, num_codes)
    launcher = native if native_runs else reference
    return launcher.code_sums(
        x, indices, mask, num_codes, channel_dim, unit=metric == "cosine", skip_nonfinite=True
    )


def _fake(
    x: Tensor,
    indices: Tensor,
    num_codes: int,
    mask: Tensor | None,
    metric: str,
    channel_dim: int,
    backend: str | None,
) -> tuple[Tensor, Tensor]:
    return (
        x.new_empty(num_codes, dtype=torch.int64),
        x.new_empty(num_codes, x.shape[channel_dim], dtype=wide(x.dtype)),
    )


code_sums = define(
    "code_sums(Tensor x, Tensor indices, int num_codes, Tensor? mask, str metric, "
    "int channel_dim, str? backend) -> (Tensor counts, Tensor sums)",
    _impl,
    _fake,
)
