"""draw_code: a code per row, drawn with its probability, as the largest of perturbed logits."""

from __future__ import annotations

import torch
from torch import Tensor

from vqkernels.backends.reference._dot_blocks import dot_blocks


def draw_code(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    keys: tuple[Tensor, Tensor],
) -> Tensor:
    """``argmax_k x_n . w_k + b_k + noise_nk`` (N,); 0 for rows that take no part."""
    blocks = dot_blocks(x, weight, bias, mask, None, keys)
    index = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    for here in blocks:
        index[here] = blocks.logits(here).argmax(dim=1)
    return torch.where(blocks.valid > 0, index, 0)
