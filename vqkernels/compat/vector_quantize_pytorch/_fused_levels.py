"""All levels of a residual quantizer by one op: evaluation, where nothing needs a gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vqkernels import ops
from vqkernels._residual_quantize import stack_codebooks

if TYPE_CHECKING:
    from vqkernels.compat.vector_quantize_pytorch.vector_quantize import VectorQuantize


def serves_fused(levels: Sequence[VectorQuantize], x: Tensor) -> bool:
    """Whether the op gives the bits of the loop over the levels.

    It keeps residuals in float32 where the loop rounds them to the dtype of x; it has no cosine
    form, returns no gradient of the codes, and calls no hook of a level.
    """
    learns = torch.is_grad_enabled() and any(
        level._codebook.embed.requires_grad for level in levels
    )
    return (
        x.dtype == torch.float32
        and not learns
        and all(
            not level.training
            and level._codebook.ready
            and not level.use_cosine_sim
            and not _hooked(level)
            for level in levels
        )
    )


def _hooked(level: VectorQuantize) -> bool:
    return bool(level._forward_hooks or level._forward_pre_hooks)


def quantize_levels(
    levels: Sequence[VectorQuantize], rows: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """(sum of the codes, indices (*positions, Q)) of ``rows``, (*positions, D)."""
    books = stack_codebooks([level._codebook.embed.detach()[0] for level in levels])
    options = (rows.ndim - 1, False, False, False, None)
    total, indices, *_ = ops.residual(
        rows.detach(), books, None, len(levels), mask, None, *options
    )
    return total, indices
