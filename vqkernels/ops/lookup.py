"""lookup: codes back to vectors, differentiable in the codebook."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from vqkernels._numerics import wide
from vqkernels.ops._library import define
from vqkernels.ops.dispatch import choose, launcher


def _impl(indices: Tensor, codebook: Tensor, channel_dim: int) -> Tensor:
    if codebook.device.type == "cpu" and choose("lookup", codebook, None, None) != "native":
        refuse_out_of_range(indices, codebook.shape[0])
    return launcher("lookup", codebook, None, None).lookup(indices, codebook, channel_dim)


def refuse_out_of_range(indices: Tensor, num_codes: int) -> None:
    """ValueError for an index outside of [-1, num_codes - 1]. Reads the values: CPU only."""
    flat = indices.reshape(-1).long()
    bad = flat[(flat < -1) | (flat >= num_codes)]
    if bad.numel():
        raise ValueError(f"indices must be in [-1, {num_codes - 1}], got {int(bad[0])}")


def _fake(indices: Tensor, codebook: Tensor, channel_dim: int) -> Tensor:
    shape = (*indices.shape[:channel_dim], codebook.shape[1], *indices.shape[channel_dim:])
    return codebook.new_empty(shape)


lookup = define("lookup(Tensor indices, Tensor codebook, int channel_dim) -> Tensor", _impl, _fake)


def _backward_impl(grad: Tensor, indices: Tensor, num_codes: int, channel_dim: int) -> Tensor:
    _, sums = launcher("code_sums", grad, None, None).code_sums(
        grad, indices, None, num_codes, channel_dim, unit=False, skip_nonfinite=False
    )
    return sums


def _backward_fake(grad: Tensor, indices: Tensor, num_codes: int, channel_dim: int) -> Tensor:
    return grad.new_empty(num_codes, grad.shape[channel_dim], dtype=wide(grad.dtype))


lookup_backward = define(
    "lookup_backward(Tensor grad, Tensor indices, int num_codes, int channel_dim) -> Tensor",
    _backward_impl,
    _backward_fake,
)


class Lookup(Function):
    """(indices, codebook) -> vectors; the gradient of a code is the sum over its positions."""

    @staticmethod
    def forward(ctx: Any, indices: Tensor, codebook: Tensor, channel_dim: int) -> Tensor:
        ctx.save_for_backward(indices)
        ctx.num_codes, ctx.channel_dim = codebook.shape[0], channel_dim
        return lookup(indices, codebook, channel_dim)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None]:
        (indices,) = ctx.saved_tensors
        sums = lookup_backward(grad, indices, ctx.num_codes, ctx.channel_dim)
        return None, sums.to(grad.dtype), None
