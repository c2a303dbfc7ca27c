"""sample_codes: a code per row, drawn with its probability by a hash instead of a generator."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vqkernels._layout import row_shape
from vqkernels.ops._hash import hash32
from vqkernels.ops._library import define
from vqkernels.ops.dispatch import launcher


def _impl(
    x: Tensor,
    codebook: Tensor,
    logsumexp: Tensor,
    clock: Tensor,
    seed: int,
    temperature: float,
    channel_dim: int,
    backend: str | None,
) -> Tensor:
    """``logsumexp`` is what ``soft_assign`` returned; rows that it masked get any index."""
    row = torch.arange(math.prod(row_shape(x, channel_dim)), device=x.device)
    # Strictly between 0 and 1.
    uniform = (hash32(row, clock, seed).double() + 0.5) * 2.0**-32
    draw = launcher("sample_codes", x, codebook, backend).sample_codes
    return draw(x, codebook, logsumexp, uniform, temperature, channel_dim)


def _fake(
    x: Tensor,
    codebook: Tensor,
    logsumexp: Tensor,
    clock: Tensor,
    seed: int,
    temperature: float,
    channel_dim: int,
    backend: str | None,
) -> Tensor:
    return x.new_empty(row_shape(x, channel_dim), dtype=torch.int64)


sample_codes = define(
    "sample_codes(Tensor x, Tensor codebook, Tensor logsumexp, Tensor clock, int seed, "
    "float temperature, int channel_dim, str? backend) -> Tensor indices",
    _impl,
    _fake,
)
