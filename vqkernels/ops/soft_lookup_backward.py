"""soft_lookup_backward: the gradients of soft_lookup."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels._numerics import wide
from vqkernels.backends import reference
from vqkernels.ops._library import define
from vqkernels.ops.draw_code import noise_keys

_Result = tuple[Tensor, Tensor, Tensor, Tensor]


def _impl(
    grad_soft: Tensor | None,
    grad_entropy: Tensor | None,
    grad_usage: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    values: Tensor | None,
    mask: Tensor | None,
    temperature: Tensor | None,
    clock: Tensor | None,
    seed: int,
    need_x: bool,
    need_weight: bool,
    need_values: bool,
) -> _Result:
    keys = None if clock is None else noise_keys(x, weight, clock, seed)
    with torch.autocast(x.device.type, enabled=False):
        return reference.soft_lookup_backward(
            *(grad_soft, grad_entropy, grad_usage, x, weight, bias, values, mask, temperature),
            *(keys, need_x, need_weight, need_values),
        )


def _fake(
    grad_soft: Tensor | None,
    grad_entropy: Tensor | None,
    grad_usage: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    values: Tensor | None,
    *options: object,
) -> _Result:
    dtype = wide(x.dtype, weight.dtype)
    return (
        x.new_empty(x.shape, dtype=dtype),
        x.new_empty(weight.shape, dtype=dtype),
        x.new_empty(len(weight), dtype=dtype),
        x.new_empty(0 if values is None else values.shape, dtype=dtype),
    )


soft_lookup_backward = define(
    "soft_lookup_backward(Tensor? grad_soft, Tensor? grad_entropy, Tensor? grad_usage, Tensor x, "
    "Tensor weight, Tensor? bias, Tensor? values, Tensor? mask, Tensor? temperature, "
    "Tensor? clock, int seed, bool need_x, bool need_weight, bool need_values) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    _impl,
    _fake,
)
