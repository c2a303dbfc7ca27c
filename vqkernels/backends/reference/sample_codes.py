"""sample_codes: a code per row, drawn with its probability."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels._layout import row_shape
from vqkernels.backends.reference._soft_blocks import soft_blocks


def sample_codes(
    x: Tensor,
    codebook: Tensor,
    logsumexp: Tensor,
    uniform: Tensor,
    temperature: float,
    channel_dim: int,
) -> Tensor:
    """The first code whose cumulative probability, k ascending, exceeds ``uniform`` (N,).

    Where rounding leaves the whole sum below it: the last code of positive probability. A row that
    is not finite gets 0, as does every row when no code is finite.
    """
    blocks = soft_blocks(x, codebook, None, temperature, channel_dim)
    index = torch.zeros(len(blocks.rows), dtype=torch.int64, device=x.device)
    last = torch.zeros_like(index)
    for here in blocks.row_blocks():
        before = torch.zeros_like(uniform[here, None])
        for there in blocks.code_blocks():
            p, _ = blocks.probabilities(here, there, logsumexp.reshape(-1))
            running = before + p.cumsum(dim=1)
            index[here] += (running <= uniform[here, None]).sum(dim=1)
            numbers = torch.arange(p.shape[1], device=x.device) + there.start
            last[here] = torch.maximum(last[here], (numbers * (p > 0)).amax(dim=1))
            before = running[:, -1:]
    return torch.minimum(index, last).reshape(row_shape(x, channel_dim))
