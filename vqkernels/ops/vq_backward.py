"""vq_backward: gradients of the quantizer step in x and in the codes."""

from __future__ import annotations

from torch import Tensor

from vqkernels._layout import like_x
from vqkernels.ops._library import define
from vqkernels.ops.dispatch import launcher


def _impl(
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
    backend: str | None,
) -> tuple[Tensor, Tensor]:
    return launcher("vq_backward", x, quantized, backend).vq_backward(
        grad_quantized,
        grad_loss,
        x,
        quantized,
        indices,
        num_codes,
        metric,
        estimator,
        commitment_weight,
        codebook_weight,
        channel_dim,
        need_x,
        need_codebook,
    )


def _fake(
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
    backend: str | None,
) -> tuple[Tensor, Tensor]:
    return (
        like_x(x, x.dtype) if need_x else x.new_empty(0),
        quantized.new_empty((num_codes, x.shape[channel_dim]) if need_codebook else (0,)),
    )


vq_backward = define(
    "vq_backward(Tensor? grad_quantized, Tensor? grad_loss, Tensor x, Tensor quantized, "
    "Tensor indices, int num_codes, str metric, str estimator, float commitment_weight, "
    "float codebook_weight, int channel_dim, bool need_x, bool need_codebook, str? backend) "
    "-> (Tensor grad_x, Tensor grad_codebook)",
    _impl,
    _fake,
)
