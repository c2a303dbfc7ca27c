"""vq_backward: the gradients of vq_forward."""

from __future__ import annotations

from torch import Tensor

from vqkernels._layout import like_x
from vqkernels.backends.native._arguments import (
    ESTIMATOR,
    METRIC,
    flat_indices,
    pointer,
    rows_of,
    threads,
)
from vqkernels.backends.native._core import core


def vq_backward(
    grad_quantized: Tensor | None,
    grad_loss: Tensor | None,
    x: Tensor,
    quantized: Tensor,
    indices: Tensor,
    num_codes: int,
    metric: str,
    estimator: str,
    commitment_weight: float,
    codebook_weight: float,
    channel_dim: int,
    need_x: bool,
    need_codebook: bool,
) -> tuple[Tensor, Tensor]:
    grad_x = like_x(x, x.dtype) if need_x else x.new_empty(0)
    shape = (num_codes, x.shape[channel_dim]) if need_codebook else (0,)
    grad_codes = quantized.new_empty(shape)
    flat = flat_indices(indices)
    core.vq_backward(
        rows_of(x, channel_dim),
        rows_of(quantized, channel_dim),
        flat.data_ptr(),
        num_codes,
        METRIC[metric],
        ESTIMATOR[estimator],
        None if grad_quantized is None else rows_of(grad_quantized, channel_dim),
        pointer(grad_loss),
        commitment_weight,
        codebook_weight,
        rows_of(grad_x, channel_dim) if need_x else None,
        grad_codes.data_ptr() if need_codebook else 0,
        threads(x.numel()),
    )
    return grad_x, grad_codes
