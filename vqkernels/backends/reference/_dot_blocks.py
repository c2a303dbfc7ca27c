"""Logits of all codes for a few rows at a time, which several ops walk through."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from vqkernels._numerics import mix32, wide

# Pairs of a row and a code per block: on a CPU a few MB, which a cache holds; a GPU wants work.
_PAIRS_ON_CPU, _PAIRS = 1 << 19, 1 << 24
_FEWEST_ROWS = 16  # with less a product does little more than read the weights


class DotBlocks(NamedTuple):
    """``(x_n . w_k + b_k + noise_nk) / temperature`` of all k and some rows, in ``wide``.

    Rows that do not take part are zero, and ``valid`` (N,) is 0 for them; a code that is not
    finite has weight 0 and bias -inf, unless no code is left, when no row is valid. The noise is
    Gumbel's, from the keys (N,) and (K,), where these are given.
    """

    rows: Tensor
    weight: Tensor
    bias: Tensor
    valid: Tensor
    temperature: Tensor | None
    keys: tuple[Tensor, Tensor] | None

    def __iter__(self) -> Iterator[slice]:  # type: ignore[override]
        pairs = _PAIRS_ON_CPU if self.rows.is_cpu else _PAIRS
        size = max(_FEWEST_ROWS, pairs // len(self.weight))
        return (slice(start, start + size) for start in range(0, len(self.rows), size))

    def logits(self, here: slice) -> Tensor:
        logits = torch.addmm(self.bias, self.rows[here], self.weight.T)
        if self.keys is not None:
            rows, codes = self.keys
            logits += _gumbel(mix32(rows[here, None] + codes), logits.dtype)
        return logits if self.temperature is None else logits.div_(self.temperature)


def dot_blocks(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    temperature: Tensor | None,
    keys: tuple[Tensor, Tensor] | None,
) -> DotBlocks:
    dtype = wide(x.dtype, weight.dtype)
    valid, usable = (values.isfinite().all(dim=1) for values in (x, weight))
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    usable = usable & bias.isfinite()
    if mask is not None:
        valid = valid & mask
    any_usable = usable.any()
    closed = torch.where(any_usable, -torch.inf, 0.0)
    valid = valid & any_usable
    return DotBlocks(
        torch.where(valid[:, None], x, 0.0).to(dtype),
        torch.where(usable[:, None], weight, 0.0).to(dtype),
        torch.where(usable, bias, closed).to(dtype),
        valid.to(dtype),
        temperature,
        keys,
    )


def _gumbel(bits: Tensor, dtype: torch.dtype) -> Tensor:
    """-log(-log(u)) for u = 1 - (bits + 1/2) / 2^32, near 1 as exact as the bits are."""
    tail = bits.to(dtype).add_(0.5).mul_(2.0**-32).clamp_(max=1.0 - 2.0**-24)
    return tail.neg_().log1p_().neg_().log_().neg_()
