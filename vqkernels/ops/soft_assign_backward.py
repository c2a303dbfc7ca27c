"""soft_assign_backward: gradients of the soft assignment in x and in the codes."""

from __future__ import annotations

from torch import Tensor

from vqkernels._layout import like_x
from vqkernels._numerics import wide
from vqkernels.ops._library import define
from vqkernels.ops.dispatch import launcher


def _impl(
    grad_logsumexp: Tensor | None,
    grad_mean_logit: Tensor | None,
    grad_usage: Tensor | None,
    x: Tensor,
    codebook: Tensor,
    mask: Tensor | None,
    logsumexp: Tensor,
    mean_logit: Tensor,
    temperature: float,
    channel_dim: int,
    need_x: bool,
    need_codebook: bool,
    backend: str | None,
) -> tuple[Tensor, Tensor]:
    return launcher("soft_assign_backward", x, codebook, backend).soft_assign_backward(
        grad_logsumexp,
        grad_mean_logit,
        grad_usage,
        x,
        codebook,
        mask,
        logsumexp,
        mean_logit,
        temperature,
        channel_dim,
        need_x,
        need_codebook,
    )


def _fake(
    grad_logsumexp: Tensor | None,
    grad_mean_logit: Tensor | None,
    grad_usage: Tensor | None,
    x: Tensor,
    codebook: Tensor,
    mask: Tensor | None,
    logsumexp: Tensor,
    mean_logit: Tensor,
    temperature: float,
    channel_dim: int,
    need_x: bool,
    need_codebook: bool,
    backend: str | None,
) -> tuple[Tensor, Tensor]:
    shape = codebook.shape if need_codebook else (0,)
    return (
        like_x(x, x.dtype) if need_x else x.new_empty(0),
        codebook.new_empty(shape, dtype=wide(x.dtype, codebook.dtype)),
    )


soft_assign_backward = define(
    "soft_assign_backward(Tensor? grad_logsumexp, Tensor? grad_mean_logit, Tensor? grad_usage, "
    "Tensor x, Tensor codebook, Tensor? mask, Tensor logsumexp, Tensor mean_logit, "
    "float temperature, int channel_dim, bool need_x, bool need_codebook, str? backend) "
    "-> (Tensor grad_x, Tensor grad_codebook)",
    _impl,
    _fake,
)
