"""Soft assignments in blocks of rows and codes, which several ops walk through."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from vqkernels._layout import as_rows
from vqkernels._numerics import upcast

_BLOCK = 512  # rows and codes per block of pairs: 2 MB of float64, several at a time


class SoftBlocks(NamedTuple):
    """Rows and codes in float64 about the mean of the finite codes, which keeps squares small.

    Rows and codes that do not take part are zero; ``valid`` (N,) and ``usable`` (K,) tell.
    """

    rows: Tensor
    codes: Tensor
    valid: Tensor
    usable: Tensor
    temperature: float

    def row_blocks(self) -> Iterator[slice]:
        return (slice(start, start + _BLOCK) for start in range(0, len(self.rows), _BLOCK))

    def code_blocks(self) -> Iterator[slice]:
        return (slice(start, start + _BLOCK) for start in range(0, len(self.codes), _BLOCK))

    def logits(self, here: slice, there: slice) -> Tensor:
        """-|x - c|^2 / temperature of a block; -inf for codes that are not finite."""
        rows, codes = self.rows[here], self.codes[there]
        squares = rows.square().sum(dim=1)[:, None] + codes.square().sum(dim=1)
        distances = (squares - 2.0 * (rows @ codes.T)).clamp(min=0.0)
        return torch.where(self.usable[there], -distances / self.temperature, -torch.inf)

    def probabilities(self, here: slice, there: slice, logsumexp: Tensor) -> tuple[Tensor, Tensor]:
        """(p, logit) of a block; the logit is 0 where p is, so that products with p are."""
        logits = self.logits(here, there)
        p = (logits - logsumexp[here, None]).exp() * self.valid[here, None]
        return p, torch.where(p > 0, logits, 0.0)


def soft_blocks(
    x: Tensor, codebook: Tensor, mask: Tensor | None, temperature: float, channel_dim: int
) -> SoftBlocks:
    rows, codes = upcast(as_rows(x, channel_dim)), upcast(codebook)
    valid, usable = (values.isfinite().all(dim=1) for values in (rows, codes))
    if mask is not None:
        valid = valid & mask.reshape(-1)
    codes = torch.where(usable[:, None], codes, 0.0)
    centre = codes.sum(dim=0) / usable.sum().clamp(min=1)
    return SoftBlocks(
        torch.where(valid[:, None], rows - centre, 0.0),
        torch.where(usable[:, None], codes - centre, 0.0),
        valid,
        usable,
        temperature,
    )
