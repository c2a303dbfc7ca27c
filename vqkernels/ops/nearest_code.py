"""nearest_code: the search. Integer output, so no gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels._layout import row_shape
from vqkernels.backends import native, reference
from vqkernels.ops._library import define
from vqkernels.ops.dispatch import choose, triton_launcher
from vqkernels.ops.normalize_codes import normalize_codes


def search(
    x: Tensor,
    codebook: Tensor,
    prepared: list[Tensor] | None,
    metric: str,
    channel_dim: int,
    backend: str | None,
) -> tuple[Tensor, Tensor]:
    """Runs the search on the chosen backend; also the first half of ``vq_forward``."""
    chosen = choose("nearest_code", x, codebook, backend)
    if chosen == "native":
        return native.nearest_code(x, codebook, prepared, metric, channel_dim)
    if chosen == "triton":
        return triton_launcher("nearest_code").nearest_code(
            x, codebook, prepared, metric, channel_dim
        )
    return reference.nearest_code(x, codebook, metric, channel_dim)


def _impl(
    x: Tensor,
    codebook: Tensor,
    prepared: list[Tensor] | None,
    metric: str,
    channel_dim: int,
    backend: str | None,
) -> tuple[Tensor, Tensor]:
    return search(x, codebook, prepared, metric, channel_dim, backend)


def _fake(
    x: Tensor,
    codebook: Tensor,
    prepared: list[Tensor] | None,
    metric: str,
    channel_dim: int,
    backend: str | None,
) -> tuple[Tensor, Tensor]:
    shape = row_shape(x, channel_dim)
    return x.new_empty(shape, dtype=torch.int64), x.new_empty(shape, dtype=torch.float32)


nearest_code = define(
    "nearest_code(Tensor x, Tensor codebook, Tensor[]? prepared, str metric, int channel_dim, "
    "str? backend) -> (Tensor indices, Tensor distances)",
    _impl,
    _fake,
)


def visited_share(
    x: Tensor,
    codebook: Tensor,
    prepared: list[Tensor] | None,
    metric: str,
    channel_dim: int,
    backend: str | None,
) -> float | None:
    """The share of the codes that the search looks at; None for all, or where x does not fit."""
    fits = -x.ndim <= channel_dim < x.ndim and x.shape[channel_dim] == codebook.shape[1]
    if not (fits and x.is_cpu and choose("nearest_code", x, codebook, backend) == "native"):
        return None
    codes = normalize_codes(codebook)[0] if metric == "cosine" else codebook
    # A lazily negated view has the values of another sign in memory.
    x, codes = x.detach().resolve_neg(), codes.detach().resolve_neg()
    return native.visited_share(x, codes, prepared, metric, channel_dim % x.ndim)
