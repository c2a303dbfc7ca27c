"""fsq: finite scalar quantization, its gradient, and codes back to vectors."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from vqkernels._layout import like_x, row_shape
from vqkernels._numerics import wide
from vqkernels.backends import native, reference
from vqkernels.ops._library import define
from vqkernels.ops.dispatch import launcher
from vqkernels.ops.lookup import refuse_out_of_range

Step = tuple[Tensor, Tensor, Tensor, Tensor]


def _impl(
    x: Tensor,
    mask: Tensor | None,
    levels: list[int],
    symmetric: bool,
    bound: str,
    num_counted: int,
    channel_dim: int,
    backend: str | None,
) -> Step:
    """``num_counted`` is K for counts per code, or 0 for none."""
    chosen = launcher("fsq", x, None, backend)
    return chosen.fsq(x, mask, tuple(levels), symmetric, bound, num_counted, channel_dim)


def _fake(
    x: Tensor,
    mask: Tensor | None,
    levels: list[int],
    symmetric: bool,
    bound: str,
    num_counted: int,
    channel_dim: int,
    backend: str | None,
) -> Step:
    return (
        like_x(x, x.dtype),
        x.new_empty(row_shape(x, channel_dim), dtype=torch.int64),
        x.new_empty((), dtype=wide(x.dtype)),
        x.new_empty(num_counted, dtype=torch.int64),
    )


fsq = define(
    "fsq(Tensor x, Tensor? mask, int[] levels, bool symmetric, str bound, int num_counted, "
    "int channel_dim, str? backend) "
    "-> (Tensor quantized, Tensor indices, Tensor mse, Tensor counts)",
    _impl,
    _fake,
)


def _backward_impl(
    grad_quantized: Tensor,
    x: Tensor,
    mask: Tensor | None,
    levels: list[int],
    symmetric: bool,
    bound: str,
    channel_dim: int,
    backend: str | None,
) -> Tensor:
    return launcher("fsq_backward", x, None, backend).fsq_backward(
        grad_quantized, x, mask, tuple(levels), symmetric, bound, channel_dim
    )


def _backward_fake(
    grad_quantized: Tensor,
    x: Tensor,
    mask: Tensor | None,
    levels: list[int],
    symmetric: bool,
    bound: str,
    channel_dim: int,
    backend: str | None,
) -> Tensor:
    return like_x(x, x.dtype)


fsq_backward = define(
    "fsq_backward(Tensor grad_quantized, Tensor x, Tensor? mask, int[] levels, bool symmetric, "
    "str bound, int channel_dim, str? backend) -> Tensor grad_x",
    _backward_impl,
    _backward_fake,
)


def _lookup_impl(indices: Tensor, levels: list[int], symmetric: bool, channel_dim: int) -> Tensor:
    options = (tuple(levels), symmetric, channel_dim)
    if indices.device.type == "cpu":
        if native.missing() is None:
            return native.fsq_lookup(indices, *options)
        refuse_out_of_range(indices, math.prod(levels))
    return reference.fsq_lookup(indices, *options)


def _lookup_fake(indices: Tensor, levels: list[int], symmetric: bool, channel_dim: int) -> Tensor:
    shape = (*indices.shape[:channel_dim], len(levels), *indices.shape[channel_dim:])
    return indices.new_empty(shape, dtype=torch.float32)


# An op, because a compiler may round the division of a code differently.
fsq_lookup = define(
    "fsq_lookup(Tensor indices, int[] levels, bool symmetric, int channel_dim) -> Tensor",
    _lookup_impl,
    _lookup_fake,
)


class FiniteScalarQuantize(Function):
    """x -> (quantized, indices, mse, counts); quantized is differentiable. Saved is x alone."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        mask: Tensor | None,
        levels: tuple[int, ...],
        symmetric: bool,
        bound: str,
        num_counted: int,
        channel_dim: int,
        backend: str | None,
    ) -> tuple[Tensor, ...]:
        step = fsq(x, mask, levels, symmetric, bound, num_counted, channel_dim, backend)
        ctx.save_for_backward(x, mask)
        ctx.options = (levels, symmetric, bound, channel_dim, backend)
        ctx.mark_non_differentiable(*step[1:])
        ctx.set_materialize_grads(False)
        return step

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        if grads[0] is None:
            return (None,) * 8
        return fsq_backward(grads[0], *ctx.saved_tensors, *ctx.options), *(None,) * 7
