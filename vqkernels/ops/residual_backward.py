"""residual_backward: gradients of the residual quantizer in x and in the codes of all levels."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels._layout import like_x
from vqkernels.ops._library import define
from vqkernels.ops.dispatch import launcher


def _impl(
    grad_quantized: Tensor | None,
    grad_loss: Tensor | None,
    x: Tensor | None,
    quantized: Tensor | None,
    remainder: Tensor,
    code_remainders: Tensor,
    mask: Tensor | None,
    num_rows: int,
    shared: bool,
    estimator: str,
    commitment_weight: float,
    codebook_weight: float,
    channel_dim: int,
    dtype: torch.dtype,
    need_x: bool,
    need_codebooks: bool,
    backend: str | None,
) -> tuple[Tensor, Tensor]:
    return launcher("residual_backward", remainder, None, backend).residual_backward(
        grad_quantized,
        grad_loss,
        x,
        quantized,
        remainder,
        code_remainders,
        mask,
        num_rows,
        shared,
        estimator,
        commitment_weight,
        codebook_weight,
        channel_dim,
        dtype,
        need_x,
        need_codebooks,
    )


def _fake(
    grad_quantized: Tensor | None,
    grad_loss: Tensor | None,
    x: Tensor | None,
    quantized: Tensor | None,
    remainder: Tensor,
    code_remainders: Tensor,
    mask: Tensor | None,
    num_rows: int,
    shared: bool,
    estimator: str,
    commitment_weight: float,
    codebook_weight: float,
    channel_dim: int,
    dtype: torch.dtype,
    need_x: bool,
    need_codebooks: bool,
    backend: str | None,
) -> tuple[Tensor, Tensor]:
    levels, k, d = code_remainders.shape
    books = (1 if shared else levels, k, d) if need_codebooks else (0,)
    return (
        like_x(remainder, dtype) if need_x else remainder.new_empty(0, dtype=dtype),
        code_remainders.new_empty(books),
    )


residual_backward = define(
    "residual_backward(Tensor? grad_quantized, Tensor? grad_loss, Tensor? x, Tensor? quantized, "
    "Tensor remainder, Tensor code_remainders, Tensor? mask, SymInt num_rows, bool shared, "
    "str estimator, float commitment_weight, float codebook_weight, int channel_dim, "
    "ScalarType dtype, bool need_x, bool need_codebooks, str? backend) "
    "-> (Tensor grad_x, Tensor grad_codebooks)",
    _impl,
    _fake,
)
