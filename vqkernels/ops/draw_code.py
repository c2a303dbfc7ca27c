"""draw_code: a code per row, drawn by its logits and a hash instead of a generator."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels.backends import reference
from vqkernels.ops._hash import hash32
from vqkernels.ops._library import define


def noise_keys(x: Tensor, weight: Tensor, clock: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """What the noise of a pair is a hash of: the sum of its row's key and its code's.

    Codes have hashes of their own, as rows have: with plain numbers, rows of neighbouring hashes
    would have the same noise, moved by a few codes.
    """
    row, code = (torch.arange(len(values), device=x.device) for values in (x, weight))
    return hash32(row, clock, seed), hash32(code, torch.zeros_like(clock), seed)


def _impl(
    x: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None, clock: Tensor, seed: int
) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return reference.draw_code(x, weight, bias, mask, noise_keys(x, weight, clock, seed))


def _fake(
    x: Tensor, weight: Tensor, bias: Tensor | None, mask: Tensor | None, clock: Tensor, seed: int
) -> Tensor:
    return x.new_empty(x.shape[0], dtype=torch.int64)


draw_code = define(
    "draw_code(Tensor x, Tensor weight, Tensor? bias, Tensor? mask, Tensor clock, int seed) "
    "-> Tensor indices",
    _impl,
    _fake,
)
